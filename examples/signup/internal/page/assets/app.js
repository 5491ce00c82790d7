// The page's entry: it connects the form, the live events and the lists.

import { Form } from "./form.js";
import { Mail } from "./mail.js";
import { People } from "./people.js";
import { taskLinks, taskStates } from "./queue.js";
import { Timeline } from "./timeline.js";

const form = new Form();
const timeline = new Timeline();
const people = new People();
const mail = new Mail();

form.onStart = (username, hasPicture) => timeline.start(username, hasPicture);
form.onFailure = () => timeline.clear();
form.onAnswer = (username, milliseconds, response) => {
  timeline.answer(milliseconds, taskLinks(response.headers.get("Link")));
  announce(`Answered in ${format(milliseconds)}.`);
  mail.show(username);
  refresh();
};
timeline.onFinish = (username, sentence) => {
  announce(`All work for ${username} is done. ${sentence}`);
  refresh();
};

function format(milliseconds) {
  return `${Math.max(1, Math.round(milliseconds))} milliseconds`;
}

function announce(text) {
  document.getElementById("announcer").textContent = text;
}

// Events come in bursts; one look at the lists after each burst is enough.
let refreshing = null;
function refresh() {
  refreshing ??= setTimeout(async () => {
    refreshing = null;
    const [users, states] = await Promise.all([people.load(), taskStates(timeline.unfinished()), mail.load()]);
    for (const state of states) timeline.queued(state);
    if (users) timeline.reconcile(users);
  }, 120);
}

let process = null; // that answers

function listen() {
  const live = document.getElementById("live");
  const say = (state, text) => {
    live.dataset.state = state;
    live.firstElementChild.textContent = text;
  };
  const events = new EventSource("/events");
  events.addEventListener("process", ({ data }) => {
    if (process !== null && process !== data) timeline.restarted();
    process = data;
  });
  events.onopen = () => {
    say("open", "Live");
    refresh();
  };
  events.onerror = () => {
    say("lost", "Reconnecting");
    // The browser tries again by itself, except after an answer that was no event stream.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
  events.onmessage = (message) => {
    const event = JSON.parse(message.data);
    timeline.event(event);
    if (event.state !== "running") refresh();
  };
}

// Tasks may run in another process, of whose events this page does not hear: the database has the truth.
setInterval(() => {
  if (timeline.pending()) refresh();
}, 2000);

listen();
refresh();
