// Reads server-sent events from the bytes of a response.

/** An event: its id, its name, and its data. One without data is a position. */
export interface ServerEvent {
  readonly id: string | undefined
  readonly event: string
  /** Undefined if it has no data. */
  readonly data: string | undefined
}

/** The most characters of one event. A record of a log is smaller. */
const mostCharacters = 64 * 1024 * 1024

const eventOf = (text: string): ServerEvent | undefined => {
  let id: string | undefined
  let event = "message"
  const data: Array<string> = []
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":")
    if (colon <= 0) continue
    const value = line.slice(colon + 1).replace(/^ /, "")
    const field = line.slice(0, colon)
    if (field === "id") id = value
    else if (field === "event") event = value
    else if (field === "data") data.push(value)
  }
  if (id === undefined && data.length === 0) return undefined
  return { id, event, data: data.length === 0 ? undefined : data.join("\n") }
}

/** The events of a response as they come: all that one piece of it completes, and an empty list for a comment. Fails for an event without end. */
export const serverEvents = async function* (
  body: AsyncIterable<Uint8Array>
): AsyncGenerator<ReadonlyArray<ServerEvent>, void> {
  const decoder = new TextDecoder()
  let rest = ""
  for await (const bytes of body) {
    // a line may end with both characters, which two pieces may divide
    rest = (rest + decoder.decode(bytes, { stream: true })).replaceAll("\r\n", "\n")
    const parts = rest.split("\n\n")
    rest = parts.pop()!
    if (rest.length > mostCharacters)
      throw new Error(`the server sends an event of more than ${mostCharacters} characters`)
    yield parts.map(eventOf).filter((event) => event !== undefined)
  }
}
