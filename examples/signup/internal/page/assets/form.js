// The sign-up form: what is chosen, what is sent, and what came back when it was refused.

const maxBytes = 5 * 1024 * 1024;
const types = ["image/png", "image/jpeg"];

// What to tell a person about an answer; the service's own words come below it.
const headlines = {
  409: "That username is taken",
  413: "That picture is too large",
  415: "That file is not a picture",
  422: "Something needs to be corrected",
  429: "Too many requests",
  503: "The service is busy",
};

export class Form {
  // Called with (username, hasPicture), with (username, milliseconds, response), and with nothing.
  onStart = () => {};
  onAnswer = () => {};
  onFailure = () => {};

  #form = document.getElementById("signup");
  #username = document.getElementById("username");
  #picture = document.getElementById("picture");
  #preview = document.getElementById("preview");
  #problem = document.getElementById("problem");
  #submit = document.getElementById("submit");

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#username.addEventListener("input", () => this.#fieldError(this.#username, ""));
    this.#picture.addEventListener("change", () => this.#choose());
    document.getElementById("remove").addEventListener("click", () => {
      this.#picture.value = "";
      this.#choose();
      this.#picture.focus();
    });
    this.#preview.addEventListener("error", () => this.#showPreview(false)); // nothing a browser can show
    // The file input covers the whole area, so dropping works by itself; this only shows where.
    const drop = document.getElementById("drop");
    for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
      drop.addEventListener(name, () => drop.classList.toggle("over", over));
    }
    this.#choose(); // browsers keep the choice over a reload
  }

  #choose() {
    const file = this.#picture.files[0];
    URL.revokeObjectURL(this.#preview.src);
    this.#preview.removeAttribute("src");
    this.#fieldError(this.#picture, this.#pictureError(file));
    const good = Boolean(file) && this.#pictureError(file) === "";
    if (good) this.#preview.src = URL.createObjectURL(file);
    this.#showPreview(good);
    document.getElementById("remove").hidden = !file;
    document.getElementById("drop-text").textContent = file ? file.name : "Choose a picture, or drop it here";
  }

  #showPreview(show) {
    this.#preview.hidden = !show;
    document.getElementById("drop-icon").toggleAttribute("hidden", show);
  }

  // Only to spare a useless upload; the service judges by the content.
  #pictureError(file) {
    if (!file) return "";
    if (!types.includes(file.type)) return "This file is not a PNG or JPEG.";
    if (file.size > maxBytes) return `This picture has ${(file.size / 1024 / 1024).toFixed(1)} MiB; 5 are allowed.`;
    return "";
  }

  #usernameError() {
    const { validity } = this.#username;
    if (validity.valueMissing) return "Please choose a username.";
    if (validity.patternMismatch) return "Only letters, digits, - and _ are allowed.";
    if (this.#username.value.length < 2) return "A username has at least 2 characters.";
    return "";
  }

  #fieldError(input, text) {
    const error = document.getElementById(`${input.id}-error`);
    error.textContent = text;
    error.hidden = text === "";
    input.toggleAttribute("aria-invalid", false);
    if (text) input.setAttribute("aria-invalid", "true");
  }

  #valid() {
    const pictureError = this.#pictureError(this.#picture.files[0]);
    this.#fieldError(this.#username, this.#usernameError());
    this.#fieldError(this.#picture, pictureError);
    const first = this.#usernameError() ? this.#username : pictureError ? this.#picture : null;
    first?.focus();
    return first === null;
  }

  async #send() {
    this.#problem.hidden = true;
    if (this.#submit.getAttribute("aria-disabled") === "true" || !this.#valid()) return;
    const username = this.#username.value;
    const file = this.#picture.files[0];
    let body;
    if (file) {
      body = new FormData();
      body.append("picture", file);
    }
    this.#busy(true);
    this.onStart(username, Boolean(file));
    const started = performance.now();
    try {
      const response = await fetch(`/register/${encodeURIComponent(username)}`, { method: "POST", body });
      const milliseconds = performance.now() - started;
      if (!response.ok) return await this.#refused(response);
      await response.json();
      this.#form.reset();
      this.#choose();
      this.#username.focus({ preventScroll: true });
      this.onAnswer(username, milliseconds, response);
    } catch {
      this.#show("No answer", "The service cannot be reached, or it refused the upload halfway. Please try again.", []);
    } finally {
      this.#busy(false);
    }
  }

  // Not the disabled attribute: that would take the focus away.
  #busy(busy) {
    this.#submit.setAttribute("aria-disabled", String(busy));
    this.#submit.textContent = busy ? "Signing up…" : "Sign up";
  }

  async #refused(response) {
    let problem = {};
    try {
      problem = await response.json();
    } catch {
      // not a problem document; the status says enough
    }
    const headline = headlines[response.status] ?? problem.title ?? "That did not work";
    const after = Number(response.headers.get("Retry-After"));
    let detail = problem.detail ?? `The service answered with status ${response.status}.`;
    if (after > 0) detail += ` Please try again in ${after} s.`;
    this.#show(headline, detail, problem.errors ?? []);
    if (response.status === 409) {
      this.#fieldError(this.#username, "Taken: please choose another.");
      this.#username.focus();
      this.#username.select();
    }
  }

  #show(headline, detail, errors) {
    const strong = document.createElement("strong");
    strong.textContent = headline;
    const text = document.createElement("p");
    text.textContent = detail;
    this.#problem.replaceChildren(strong, text);
    if (errors.length > 0) {
      const list = document.createElement("ul");
      for (const { message, location } of errors) {
        const item = document.createElement("li");
        item.textContent = location ? `${message} (${location})` : message;
        list.append(item);
      }
      this.#problem.append(list);
    }
    this.#problem.hidden = false;
    this.onFailure();
  }
}
