// What the queue says of tasks on disk.

// Finds the tasks in the Link header of an answer: their paths by name.
export function taskLinks(header) {
  const links = new Map();
  for (const [, path, name] of (header ?? "").matchAll(/<([^>]+)>; rel="monitor"; title="([^"]+)"/g)) links.set(name, path);
  return links;
}

// Returns the tasks that can be had.
export async function taskStates(links) {
  const answers = await Promise.allSettled(links.map(async (link) => {
    const response = await fetch(link, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!response.ok) throw new Error(response.statusText);
    return response.json();
  }));
  return answers.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
}
