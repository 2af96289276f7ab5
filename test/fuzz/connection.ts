// A client of HTTP on bare sockets, which sends any bytes: a reader of responses, and exchanges of requests that no client library sends.
import { connect, type Socket } from "node:net"

/** A response. */
export interface RawResponse {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
  /** Whether the body has no end, as that of a stream, or the connection was upgraded. */
  readonly isOpen: boolean
}
/** What came back for the bytes that were sent. */
export interface RawAnswer {
  readonly responses: ReadonlyArray<RawResponse>
  /** Bytes that belong to no response. */
  readonly rest: string
  /** Whether the server closed the connection. */
  readonly isClosed: boolean
}

const headEnd = "\r\n\r\n"

/** Reads responses from the bytes of a connection, as they arrive. */
export class ResponseReader {
  readonly responses: Array<RawResponse> = []
  #bytes: Buffer = Buffer.alloc(0)
  readonly #methods: Array<string>

  /** `methods`: those of the requests, in order, since a response to HEAD has no body. */
  constructor(methods: ReadonlyArray<string>) {
    this.#methods = [...methods]
  }

  get rest(): string {
    return this.#bytes.toString("latin1")
  }

  /** Whether a response has begun that is not complete. */
  get isWithin(): boolean {
    return this.#bytes.length > 0
  }

  push(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk])
    while (this.#next());
  }

  /** Ends a response whose body ends with the connection. */
  end(): void {
    const at = this.#bytes.indexOf(headEnd)
    if (at >= 0) this.#take(at, this.#bytes.length - at - headEnd.length, false)
  }

  #next(): boolean {
    const at = this.#bytes.indexOf(headEnd)
    if (at < 0) return false
    const { headers, status } = this.#head(at)
    const start = at + headEnd.length
    // an interim response
    if (status >= 100 && status < 200 && status !== 101) {
      this.#bytes = this.#bytes.subarray(start)
      return true
    }
    if (status === 101 || headers.get("content-type")?.startsWith("text/event-stream") === true) {
      if (this.#methods[0] === "HEAD") return this.#take(at, 0, false)
      this.#take(at, this.#bytes.length - start, true)
      return false
    }
    if (this.#methods[0] === "HEAD" || status === 204 || status === 304) return this.#take(at, 0, false)
    if (headers.get("transfer-encoding") === "chunked") {
      const end = this.#bytes.indexOf("\r\n0\r\n\r\n", start - 2)
      return end >= 0 && this.#take(at, end + 7 - start, false)
    }
    const length = headers.get("content-length")
    if (length === undefined) return false
    return this.#bytes.length - start >= Number(length) && this.#take(at, Number(length), false)
  }

  #head(at: number): { readonly status: number; readonly headers: Map<string, string> } {
    const [first = "", ...lines] = this.#bytes.subarray(0, at).toString("latin1").split("\r\n")
    const headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(":")
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const
      })
    )
    return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(first)?.[1] ?? 0), headers }
  }

  #take(at: number, length: number, isOpen: boolean): true {
    const { headers, status } = this.#head(at)
    const start = at + headEnd.length
    const body = this.#bytes.subarray(start, start + length).toString("utf8")
    this.#bytes = this.#bytes.subarray(start + length)
    this.#methods.shift()
    this.responses.push({ status, headers, body, isOpen })
    return true
  }
}

/** The times of an exchange, in milliseconds. */
export interface ExchangeTimes {
  /** How long the whole may take. */
  readonly mostMs: number
  /** How long nothing may arrive after the last complete response, before the client closes the connection. */
  readonly idleMs: number
}

/** Sends parts of bytes, a moment apart, on a connection of its own, and reads what comes back until the server closes it or nothing more comes. */
export const exchange = (
  port: number,
  parts: ReadonlyArray<Buffer>,
  methods: ReadonlyArray<string>,
  { idleMs, mostMs }: ExchangeTimes
): Promise<RawAnswer> =>
  new Promise((resolve) => {
    const reader = new ResponseReader(methods)
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    let idle: NodeJS.Timeout | undefined
    const settle = (isClosed: boolean) => {
      clearTimeout(idle)
      clearTimeout(most)
      socket.destroy()
      if (isClosed) reader.end()
      resolve({ responses: reader.responses, rest: reader.rest, isClosed })
    }
    const most = setTimeout(() => settle(false), mostMs)
    socket.on("error", () => {})
    socket.once("close", () => settle(true))
    socket.on("data", (chunk: Buffer) => {
      reader.push(chunk)
      if (reader.responses.at(-1)?.isOpen === true) return settle(false)
      clearTimeout(idle)
      if (!reader.isWithin && reader.responses.length >= methods.length) idle = setTimeout(() => settle(false), idleMs)
    })
    const write = (i: number): void => {
      if (i >= parts.length || socket.destroyed) return
      socket.write(parts[i]!)
      if (i + 1 < parts.length) setTimeout(() => write(i + 1), 3)
    }
    socket.once("connect", () => write(0))
  })

/** How long a kept connection may be unused and is used again. Milliseconds. */
const reuseMs = 500

/** A connection that is kept for requests that follow each other. */
export class KeptConnection {
  readonly #port: number
  #socket: Socket | undefined
  #usedAt = 0

  constructor(port: number) {
    this.#port = port
  }

  /** Sends one well-formed request, and resolves to its response; undefined if the server closed the connection without one, or `mostMs` were over. */
  send(bytes: Buffer, method: string, mostMs: number): Promise<RawAnswer> {
    // the server may close at any moment a connection that was not used for long
    const kept = this.#socket
    if (kept !== undefined && (kept.destroyed || kept.readableEnded || Date.now() - this.#usedAt > reuseMs))
      this.close()
    const socket = this.#socket ?? connect({ port: this.#port, host: "127.0.0.1", noDelay: true })
    this.#socket = socket
    return new Promise((resolve) => {
      const reader = new ResponseReader([method])
      const settle = (isClosed: boolean) => {
        clearTimeout(most)
        this.#usedAt = Date.now()
        socket.removeAllListeners("data").removeAllListeners("close").removeAllListeners("error")
        socket.on("error", () => {})
        if (isClosed) reader.end()
        const [response] = reader.responses
        const isOver = isClosed || response === undefined || response.isOpen || reader.isWithin
        if (isOver || response.headers.get("connection") === "close") this.close()
        resolve({ responses: reader.responses, rest: reader.rest, isClosed })
      }
      const most = setTimeout(() => settle(false), mostMs)
      socket.on("error", () => {})
      socket.once("close", () => settle(true))
      socket.on("data", (chunk: Buffer) => {
        reader.push(chunk)
        if (reader.responses.length > 0) settle(false)
      })
      socket.write(bytes)
    })
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }
}
