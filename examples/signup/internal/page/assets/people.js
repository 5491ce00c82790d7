// The list of people who signed up.

const shown = 8;
const marks = [
  { field: "logged", label: "Log" },
  { field: "emailed", label: "E-mail" },
  { field: "crm", label: "CRM" },
];

export class People {
  #root = document.getElementById("people");
  #count = document.getElementById("count");
  #last = "";

  // Returns the users, newest first, or nothing if they cannot be had.
  async load() {
    let users;
    try {
      const response = await fetch("/data", { cache: "no-store" });
      if (!response.ok) return;
      ({ users } = await response.json());
    } catch {
      return; // the state of the connection is shown at the top
    }
    // Drawing only what changed keeps a reader's place in the list.
    const now = JSON.stringify([users.length, users.slice(0, shown)]);
    if (now !== this.#last && users.length > 0) this.#draw(users);
    this.#last = now;
    return users;
  }

  #draw(users) {
    this.#count.textContent = users.length === 1 ? "1 person" : `${users.length.toLocaleString("en")} people`;
    const list = document.createElement("ul");
    list.className = "people";
    for (const user of users.slice(0, shown)) list.append(person(user));
    this.#root.replaceChildren(list);
    if (users.length > shown) {
      const more = document.createElement("p");
      more.className = "more";
      const link = document.createElement("a");
      link.href = "/data";
      link.textContent = `and ${(users.length - shown).toLocaleString("en")} more`;
      more.append(link);
      this.#root.append(more);
    }
  }
}

function person(user) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.className = "person-name";
  name.textContent = user.username;
  const time = document.createElement("time");
  time.dateTime = user.registered_at;
  time.textContent = new Date(user.registered_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const chips = document.createElement("span");
  chips.className = "chips";
  for (const { field, label } of marks) {
    const chip = document.createElement("span");
    chip.className = user[field] ? "chip done" : "chip";
    chip.textContent = label;
    const state = document.createElement("span");
    state.className = "visually-hidden";
    state.textContent = user[field] ? ": done." : ": not yet.";
    chip.append(state);
    chips.append(chip);
  }
  item.append(avatar(user), name, time, chips);
  return item;
}

function avatar(user) {
  if (user.picture) {
    const image = document.createElement("img");
    image.className = "avatar";
    image.src = user.picture;
    image.alt = `Picture of ${user.username}`;
    image.width = image.height = 40;
    return image;
  }
  const letters = document.createElement("span");
  letters.className = "avatar";
  letters.setAttribute("aria-hidden", "true");
  letters.textContent = user.username.replace(/[-_]/g, "").slice(0, 2).toUpperCase();
  return letters;
}
