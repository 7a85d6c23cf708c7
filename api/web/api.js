// The daemon's REST API: JSON requests with the tab's token, and server-sent events.

const kTokenKey = "pared-token";

export class ApiError extends Error {
  constructor(status, body) {
    const [first] = body.errors ?? [];
    const place = first && (first.pointer ?? first.parameter ?? first.where);
    super([body.title, place, body.detail].filter(Boolean).join(": ") || `HTTP ${status}`);
    this.status = status;
    this.pointer = first?.pointer ?? null;  // JSON Pointer into the request's body
  }
}

function headers(extra = {}) {
  const token = sessionStorage.getItem(kTokenKey);
  return token ? { ...extra, authorization: `Bearer ${token}` } : extra;
}

// Asks for a token once, however many requests are waiting for one.
let asking = null;
function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token");
    const text = document.getElementById("token-text");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(kTokenKey, text.value.trim());
      text.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function answerOf(path, options) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(options.headers) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { title: "the daemon does not answer", detail: "is it running?" });
    }
    if (response.status === 401) {
      await askForToken();
      continue;
    }
    if (response.ok) return response;
    const text = await response.text();
    let body;
    try {
      body = JSON.parse(text);
    } catch {
      body = { title: text };
    }
    throw new ApiError(response.status, body);
  }
}

// get("/v1/runs", {limit: 5, filter: null}): empty parameters are left out.
export async function get(path, query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(entries).toString();
  return (await answerOf(text ? `${path}?${text}` : path, {})).json();
}

export async function send(method, path, body) {
  const options = { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const text = await (await answerOf(path, options)).text();
  return text ? JSON.parse(text) : null;
}

export async function upload(path, file) {
  return (await answerOf(path, { method: "PUT", body: file })).json();
}

export async function download(path, name) {
  const blob = await (await answerOf(path, {})).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Splits a stream of server-sent events (HTML standard, 9.2.6) into {event, data} with data from JSON.
async function readEvents(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    pending += value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      let event = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      }
      if (data.length > 0) onEvent(event, JSON.parse(data.join("\n")));
    }
  }
}

// Follows a stream until `signal` aborts or, where it `ends`, until the daemon closes it; a connection that breaks is made again.
export async function follow(path, signal, onEvent, { ends = false } = {}) {
  while (!signal.aborted) {
    try {
      const response = await answerOf(path, { signal });
      await readEvents(response.body, onEvent);
      if (ends) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
