// The mail that arrived at the built-in catcher.

export class Mail {
  #root = document.getElementById("mail");
  #for = null;
  #last = "";

  // Prefers the mail to this user from now on.
  show(username) {
    this.#for = `${username}@example.test`.toLowerCase();
  }

  async load() {
    try {
      const response = await fetch("/mail", { cache: "no-store" });
      if (response.status === 404) return this.#say("Mail goes to an outside server; its mailbox is there.");
      if (!response.ok) return;
      const { messages, note } = await response.json();
      this.#draw(messages, note);
    } catch {
      // the state of the connection is shown at the top
    }
  }

  #say(text) {
    const empty = document.createElement("p");
    empty.className = "empty";
    empty.textContent = text;
    this.#root.replaceChildren(empty);
    this.#last = "";
  }

  #draw(messages, note) {
    const mine = (message) => message.to.some((to) => to.toLowerCase() === this.#for);
    const message = messages.find(mine) ?? (this.#for === null ? messages[0] : undefined);
    if (!message) return this.#say(note ?? (messages.length === 0 ? "The built-in mail catcher is empty." : "On its way…"));
    const now = JSON.stringify([message, messages.length]);
    if (now !== this.#last) this.#root.replaceChildren(letter(message, messages.length));
    this.#last = now;
  }
}

function letter(message, count) {
  const article = document.createElement("article");
  article.className = "letter";
  const subject = document.createElement("h3");
  subject.textContent = message.subject;
  const head = document.createElement("dl");
  for (const [label, value] of [["From", message.from], ["To", message.to.join(", ")]]) {
    const term = document.createElement("dt");
    term.textContent = label;
    const text = document.createElement("dd");
    text.textContent = value;
    head.append(term, text);
  }
  // Lines of a mail are broken for terminals; a paragraph is what an empty line ends.
  const body = document.createElement("div");
  body.className = "letter-body";
  for (const paragraph of message.text.trim().split(/(?:\r?\n){2,}/)) {
    const p = document.createElement("p");
    p.textContent = paragraph.replace(/\r?\n/g, " ");
    body.append(p);
  }
  const foot = document.createElement("p");
  foot.className = "letter-foot";
  const time = new Date(message.received_at).toLocaleTimeString();
  const twice = message.deliveries > 1 ? `, sent ${message.deliveries} times and kept once` : "";
  foot.textContent = `Arrived at ${time}${twice}. ${count === 1 ? "1 mail" : `${count} mails`} in the catcher.`;
  article.append(subject, head, body, foot);
  return article;
}
