// Requests to the server this page came from, and what its errors mean.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const getJson = async (path, signal) => (await answered(path, { signal })).json();

export const postJson = async (path, body, signal) => (await answered(path, posting(body, signal))).json();

/** The server-sent events of a POST: {event, data} with `data` parsed; ends at `[DONE]`. An error event is thrown. */
export async function* events(path, body, signal) {
  const response = await answered(path, posting(body, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value.replaceAll("\r", "");
    const blocks = waiting.split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const event = lines.find((line) => line.startsWith("event:"))?.slice(6).trim() ?? "message";
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (!data) continue;
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed?.error) throw new ApiError(parsed.error.message ?? "The server ended the text with an error.", 500);
      if (event === "error") throw new ApiError(String(parsed), 503);
      yield { event, data: parsed };
    }
  }
}

const posting = (body, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
  signal,
});

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is acorn serve still running?", 0);
  }
  if (response.ok) return response;
  let said = "";
  try {
    said = (await response.json()).error?.message ?? "";
  } catch {
    // no JSON: the status alone has to do
  }
  throw new ApiError(meaning(response, said), response.status);
}

function meaning(response, said) {
  const wait = Number(response.headers.get("Retry-After")) || 0;
  const again = wait ? ` Try again in ${wait} s.` : " Try again in a moment.";
  const plain = {
    401: "The server asks for its key. Reload the page and give the key as password.",
    413: "The text is too long for one request. Shorten it.",
    429: `The server is busy.${again}`,
    503: `The server is loading its model, or is stopping.${again}`,
  }[response.status];
  return plain ?? (said || `The server could not answer (status ${response.status}).`);
}
