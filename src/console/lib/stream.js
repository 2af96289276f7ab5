// Follows a stream of server-sent events by `fetch`, which can send a credential, with what the protocol asks of a client: it goes on from its last id.
import { credential, errorOf, headersOf, noteRefusal } from "./api.js"
import { parseJson } from "./json.js"
import { setOnline, untilMayAsk } from "./online.js"

/** Splits the text of a stream into its events: `{ id, event, data }`. */
const eventsOf = async function* (body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  try {
    while (true) {
      const { done, value } = await reader.read()
      if (done) return
      rest += value
      const parts = rest.split("\n\n")
      rest = parts.pop()
      for (const part of parts) {
        const event = { id: undefined, event: "message", data: "" }
        for (const line of part.split("\n")) {
          if (line.startsWith("id:")) event.id = line.slice(3).trim()
          else if (line.startsWith("event:")) event.event = line.slice(6).trim()
          else if (line.startsWith("data:"))
            event.data += (event.data === "" ? "" : "\n") + line.slice(5).replace(/^ /, "")
        }
        yield event
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}
const sleep = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true })
  })
/** Opens a stream after an id: `{ body }`, or `{ error, isFinal }`. While the frame asks for a credential, that is no error of the stream. */
const connected = async (path, last, signal) => {
  const key = credential()
  const headers = headersOf(key, undefined, {
    // with JSON it gets statuses; with events alone, 200 and the event `end`
    accept: "text/event-stream, application/json",
    ...(last !== undefined && { "last-event-id": last })
  })
  const response = await fetch(path, { headers, signal, cache: "no-store" }).catch((error) => {
    if (!signal.aborted) setOnline(false)
    throw error
  })
  if (response.ok) return { body: response.body }
  const error = errorOf(response.status, await response.text())
  noteRefusal(key, error)
  if (response.status === 401) throw error
  return { error, isFinal: response.status < 500 && response.status !== 429 }
}

/**
 * Follows `path` until the returned function is called. `onEvents` gets arrays of `{ id, event, data }` with parsed data, at most one array in `everyMs`; with
 * `newest` only so many of the last ones, and with `isRaw` the data is text: what is not parsed costs nothing. `onState` gets
 * `{ state: "connecting" | "open" | "waiting" | "refused", error }`. A lost connection is opened again after its last id; `from` is the id to begin after. While the
 * tab is hidden there is no connection, since a browser has six for all tabs. The returned function has `position()`: the last id.
 */
export const follow = (path, { everyMs = 100, from, isRaw = false, newest, onEvents, onState }) => {
  const stop = new AbortController()
  const { signal } = stop
  let last = from
  let pending = []
  let frame
  let connection
  const release = () => document.hidden && connection?.abort()
  document.addEventListener("visibilitychange", release, { signal })
  const flush = () => {
    frame = undefined
    const events = (newest === undefined ? pending : pending.slice(-newest)).map(({ data, event, id }) => ({
      id,
      event,
      data: isRaw ? data : parseJson(data)
    }))
    pending = []
    if (!signal.aborted && events.length > 0) onEvents(events)
  }
  const run = async () => {
    let wait = 500
    while (true) {
      await untilMayAsk(signal)
      if (signal.aborted) return
      connection = new AbortController()
      onState({ state: "connecting" })
      try {
        const both = AbortSignal.any([signal, connection.signal])
        const { body, error, isFinal } = await connected(path, last, both)
        if (error !== undefined) {
          onState(isFinal ? { state: "refused", error } : { state: "waiting", error })
          if (isFinal) return
        } else {
          onState({ state: "open" })
          wait = 500
          for await (const { data, event, id } of eventsOf(body)) {
            if (id !== undefined) last = id
            if (data === "") continue
            pending.push({ id, event, data })
            if (newest !== undefined && pending.length > 2 * newest) pending = pending.slice(-newest)
            frame ??= setTimeout(flush, everyMs)
          }
        }
      } catch {
        // the connection was lost
      }
      if (signal.aborted) return
      if (connection.signal.aborted) continue
      onState({ state: "waiting" })
      await sleep(wait, signal)
      wait = Math.min(wait * 2, 10_000)
    }
  }
  run()
  const end = () => {
    stop.abort()
    clearTimeout(frame)
  }
  return Object.assign(end, { position: () => last })
}
