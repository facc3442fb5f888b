// Requests to the server this page came from, and what its errors mean.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const getJson = async (path, signal) => (await answered(path, { signal })).json();

export const postJson = async (path, body, signal) => (await answered(path, posting(body, signal))).json();

/** The objects of a stream of server-sent events, until `[DONE]`. An error is thrown. Without a body it is a GET. */
export async function* events(path, body, signal) {
  const response = await answered(path, body ? posting(body, signal) : { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (waiting + value).split("\n\n");
    waiting = lines.pop();
    for (const line of lines) {
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new ApiError(parsed.error.message, 500);
      yield parsed;
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
