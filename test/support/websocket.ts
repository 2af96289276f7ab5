// A client of WebSocket streams, for tests.
import { WebSocket, type ClientOptions } from "ws"

/** A message of a stream. */
export interface Message {
  readonly id?: string
  readonly event: string
  readonly data?: unknown
}

/** Opens a WebSocket. Resolves to what the server answered if it refuses. */
export const webSocket = async (url: string, options: ClientOptions = {}, protocols: ReadonlyArray<string> = []) => {
  const socket = new WebSocket(url.replace(/^http/, "ws"), [...protocols], options)
  const messages: Array<Message> = []
  const waiting: Array<() => void> = []
  const wake = () => {
    for (const go of waiting.splice(0)) go()
  }
  const ends: Array<{ readonly code: number; readonly reason: string }> = []
  socket.on("error", () => {})
  socket.on("message", (data) => {
    messages.push(JSON.parse(String(data)) as Message)
    wake()
  })
  socket.on("close", (code, reason) => {
    ends.push({ code, reason: String(reason) })
    wake()
  })
  const refused = await new Promise<
    { readonly status: number; readonly body: { readonly error: { readonly code: string } } } | undefined
  >((resolve, reject) => {
    socket.once("open", () => resolve(undefined))
    socket.once("error", reject)
    socket.once("unexpected-response", (_, response) => {
      let text = ""
      response.on("data", (chunk: Buffer) => (text += chunk.toString()))
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }))
    })
  })
  /** The next message; undefined if the connection was closed. */
  const next = async (): Promise<Message | undefined> => {
    while (messages.length === 0 && ends.length === 0) await new Promise<void>((go) => waiting.push(go))
    return messages.shift()
  }
  return {
    refused,
    socket,
    next,
    /** The next messages that are records. */
    records: async (count: number): Promise<ReadonlyArray<Message>> => {
      const found: Array<Message> = []
      while (found.length < count) {
        const message = await next()
        if (message === undefined) throw new Error(`closed after ${found.length} records of ${count}`)
        if (message.event !== "position") found.push(message)
      }
      return found
    },
    /** The code and the reason with which the connection was closed. */
    closed: async () => {
      while (ends.length === 0) await new Promise<void>((go) => waiting.push(go))
      return ends[0]!
    },
    close: () => socket.terminate()
  }
}
