// The timeline of one registration: the request, the answer, and the work after it.

const tasks = [
  { step: "log_registration", label: "Write the log", field: "logged", where: "memory" },
  { step: "send_welcome_email", label: "Send the mail", field: "emailed", where: "disk" },
  { step: "resize_picture", label: "Resize the picture", field: "picture", where: "disk" },
  { step: "update_crm", label: "Update the CRM", field: "crm", where: "disk" },
];

const words = {
  waiting: "waiting", running: "running", retrying: "retrying", failed: "failed", lost: "lost", skipped: "no picture", empty: "",
};

const settled = new Set(["done", "skipped", "lost"]);

export class Timeline {
  // Called with (username, sentence) when nothing is left to do.
  onFinish = () => {};

  #root = document.getElementById("timeline");
  #answered = document.getElementById("answered");
  #lead = document.getElementById("lead");
  #sum = document.getElementById("sum");
  #thumbnail = document.getElementById("thumbnail");
  #rows = new Map();
  #run = null; // the registration shown
  #frame = null; // the next drawing

  constructor() {
    const list = document.getElementById("steps");
    this.#rows.set("request", new Row(list, "Your request"));
    for (const { step, label, where } of tasks) this.#rows.set(step, new Row(list, label, where));
    this.clear();
  }

  clear() {
    this.#run = null;
    this.#root.dataset.phase = "empty";
    this.#root.style.removeProperty("--answer");
    this.#answered.hidden = this.#sum.hidden = this.#thumbnail.hidden = true;
    this.#lead.hidden = false;
    for (const row of this.#rows.values()) row.set("empty");
  }

  start(username, hasPicture) {
    const steps = new Map(tasks.map(({ step }) => [step, { state: "waiting", start: null, end: null, detail: "" }]));
    if (!hasPicture) steps.get("resize_picture").state = "skipped";
    this.#run = { username, started: performance.now(), answer: null, steps, links: new Map(), offset: null, finished: false };
    this.#root.dataset.phase = "request";
    this.#answered.hidden = this.#sum.hidden = this.#thumbnail.hidden = true;
    this.#lead.hidden = true;
    this.#redraw();
  }

  // Links are where the queue tells of the tasks on disk, by step.
  answer(milliseconds, links) {
    this.#run.answer = milliseconds;
    this.#run.links = links;
    this.#root.dataset.phase = "after";
    this.#answered.textContent = `Answered in ${duration(milliseconds)}`;
    this.#answered.hidden = false;
    this.#finish();
  }

  pending() {
    return this.#run !== null && !this.#run.finished;
  }

  // Returns the links of the tasks on disk that are not done.
  unfinished() {
    if (this.#run === null) return [];
    return [...this.#run.links].filter(([step]) => this.#run.steps.get(step).state !== "done").map(([, link]) => link);
  }

  // Steps are kept in the service's time, whose clock need not agree with this page's. The event that came fastest tells
  // best how the two differ.
  event({ username, step, state, detail, at }) {
    const run = this.#run;
    const seen = run?.steps.get(step);
    const time = parseTime(at);
    if (!seen || Number.isNaN(time) || !sameName(username, run.username) || seen.state === "done") return;
    run.offset = Math.min(run.offset ?? Infinity, performance.now() - run.started - time);
    seen.start = state === "running" ? time : (seen.start ?? time);
    seen.end = state === "running" ? null : time;
    seen.state = state;
    seen.detail = detail ?? "";
    this.#finish();
  }

  // Takes over what the queue says of a task on disk, whichever process runs it.
  queued({ id, kind, state, attempt, run_at, finished_at, progress }) {
    const run = this.#run;
    const seen = run?.steps.get(kind);
    if (!seen || !run.links.get(kind)?.endsWith(id) || seen.state === "done") return;
    const now = performance.now() - run.started;
    run.offset ??= now - Date.now();
    switch (state) {
      case "succeeded":
        seen.end = parseTime(finished_at);
        Object.assign(seen, { state: "done", start: seen.start ?? seen.end, detail: "" });
        break;
      case "dead":
      case "cancelled":
        Object.assign(seen, { state: "failed", detail: "It did not work. The service's log says why." });
        break;
      case "scheduled":
        Object.assign(seen, { state: "retrying", detail: `Attempt ${attempt} did not work. Next: ${clock(run_at)}.` });
        break;
      case "running":
        if (seen.state !== "running") Object.assign(seen, { start: now - run.offset, end: null });
        Object.assign(seen, { state, detail: progress ? `Step ${progress.done} of ${progress.total}: ${progress.message}` : "" });
        break;
      case "ready": // the process that ran it has ended, or none has come to it yet
        Object.assign(seen, { state: "waiting", start: null, end: null, detail: "" });
        break;
    }
    this.#finish();
  }

  // Another process answers than before. What was in the memory of that one is lost, unless it was stopped gently.
  restarted() {
    for (const { step, where } of tasks) {
      const seen = this.#run?.steps.get(step);
      if (where !== "memory" || !seen || seen.state === "done" || seen.state === "failed") continue;
      Object.assign(seen, { state: "lost", start: null, end: null, detail: "It was in the memory of a process that has ended." });
    }
    if (this.#run?.answer) this.#finish();
  }

  // Corrects what events did not say from the list of users.
  reconcile(users) {
    const run = this.#run;
    const user = run && users.find(({ username }) => sameName(username, run.username));
    if (!user || run.answer === null) return;
    const now = performance.now() - run.started;
    run.offset ??= now - Date.now();
    for (const { step, field } of tasks) {
      const seen = run.steps.get(step);
      if (!user[field] || seen.state === "done") continue;
      const end = seen.end ?? now - run.offset;
      Object.assign(seen, { state: "done", start: seen.start ?? end, end, detail: "" });
    }
    this.#finish();
  }

  #finish() {
    const run = this.#run;
    this.#redraw();
    if (run.steps.get("resize_picture").state === "done") this.#showThumbnail(run.username);
    const steps = [...run.steps.values()];
    if (run.finished || run.answer === null || !steps.every(({ state }) => settled.has(state))) return;
    run.finished = true;
    const work = steps.reduce((sum, { start, end }) => sum + (end === null ? 0 : end - start), 0);
    const lost = steps.some(({ state }) => state === "lost") ? " What was in memory alone is lost." : "";
    const sentence = `You waited ${duration(run.answer)}. Another ${duration(work)} of work came after the answer.${lost}`;
    this.#sum.textContent = sentence;
    this.#sum.hidden = false;
    this.onFinish(run.username, sentence);
  }

  #showThumbnail(username) {
    if (!this.#thumbnail.hidden) return;
    this.#thumbnail.src = `/pictures/${encodeURIComponent(username)}`;
    this.#thumbnail.alt = `The resized picture of ${username}`;
    this.#thumbnail.hidden = false;
  }

  // Draws with the next frame, and again until nothing moves any more.
  #redraw() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      const run = this.#run;
      if (run === null) return;
      this.#draw(run, performance.now() - run.started);
      const moves = run.answer === null || [...run.steps.values()].some(({ state }) => state === "running");
      if (moves) this.#redraw();
    });
  }

  #draw(run, now) {
    const answer = run.answer ?? now;
    // Nothing in memory starts before the answer is sent, though its news may travel faster than the answer. What is on
    // disk may start as soon as it is stored.
    const starts = tasks.filter(({ where }) => where === "memory").map(({ step }) => run.steps.get(step).start ?? Infinity);
    const offset = Math.max(run.offset, answer - Math.min(...starts));
    const bars = [...run.steps].map(([step, seen]) => {
      const start = seen.start === null ? null : seen.start + offset;
      const end = seen.end === null ? now : seen.end + offset;
      return { step, state: seen.state, detail: seen.detail, start, end: start === null ? null : Math.max(start, end) };
    });
    const end = Math.max(20, answer, ...bars.map((bar) => bar.end ?? 0)) * 1.04;
    this.#root.style.setProperty("--answer", answer / end);
    document.getElementById("axis-end").textContent = duration(end);
    this.#rows.get("request").set(run.answer === null ? "running" : "done", "", 0, answer, end);
    for (const bar of bars) this.#rows.get(bar.step).set(bar.state, bar.detail, bar.start, bar.end, end);
  }
}

// Row is one line of the timeline.
class Row {
  constructor(list, label, where = "") {
    this.item = document.createElement("li");
    this.item.className = "step";
    const name = document.createElement("span");
    name.className = "step-name";
    name.textContent = label;
    if (where) {
      const tag = document.createElement("span");
      tag.className = `where ${where}`;
      tag.textContent = where;
      name.append(" ", tag);
    }
    this.note = document.createElement("span");
    this.note.className = "step-note";
    this.track = document.createElement("span");
    this.track.className = "track";
    this.track.setAttribute("aria-hidden", "true");
    const bar = document.createElement("span");
    bar.className = "bar";
    this.track.append(bar);
    this.detail = document.createElement("span");
    this.detail.className = "step-detail";
    this.item.append(name, this.note, this.detail, this.track);
    list.append(this.item);
  }

  set(state, detail = "", start = null, end = null, total = 1) {
    const took = start === null ? "" : duration(end - start);
    const note = state === "done" ? took : words[state];
    const why = state === "done" ? "" : detail;
    this.item.dataset.state = state;
    if (this.note.textContent !== note) this.note.textContent = note;
    if (this.detail.textContent !== why) this.detail.textContent = why;
    this.item.classList.toggle("drawn", start !== null);
    this.track.style.setProperty("--from", (start ?? 0) / total);
    this.track.style.setProperty("--to", (end ?? 0) / total);
  }
}

// Date.parse drops what is finer than a millisecond, which is long for some tasks.
function parseTime(text) {
  const fraction = text.match(/\.\d+/)?.[0] ?? "";
  return Date.parse(text.replace(fraction, "")) + 1000 * Number(`0${fraction}`);
}

function duration(milliseconds) {
  if (milliseconds < 0.05) return "< 0.1 ms";
  if (milliseconds >= 9950) return `${Math.round(milliseconds / 1000)} s`;
  if (milliseconds >= 995) return `${(milliseconds / 1000).toFixed(1)} s`;
  if (milliseconds >= 9.95) return `${Math.round(milliseconds)} ms`;
  return `${milliseconds.toFixed(1)} ms`;
}

function clock(time) {
  return new Date(time).toLocaleTimeString();
}

function sameName(a, b) {
  return a.toLowerCase() === b.toLowerCase();
}
