// Reads request bodies as text: with a limit for each and for all together, decompressed, and checked to be UTF-8.
import { isUtf8 } from "node:buffer"
import type { Readable } from "node:stream"
import { createGunzip } from "node:zlib"
import { textOf as bytesAsText } from "../../text/utf8.ts"
import type { Limits } from "./limits.ts"
import { Problem, retryAfterSeconds } from "./problem.ts"

/** What one request uses of the memory for bodies. */
export interface BodyShare {
  /** Adds bytes to the share. Returns a `Problem` if they are not free, or if the request has ended. */
  readonly grow: (bytes: number) => Problem | undefined
  /** Calls `refuse` if the memory is needed for other requests while this one is slow to send its body. Returns a function that ends that. */
  readonly receiving: (refuse: (problem: Problem) => void) => () => void
  /** Gives the whole share back, for good. */
  readonly release: () => void
}
interface Upload {
  readonly since: number
  readonly refuse: () => void
}

const ended = (): Problem =>
  new Problem(400, "invalid_request", "the client closed the connection", "send the request again")
const tooSlow = (message: string): Problem =>
  new Problem(
    408,
    "request_timeout",
    message,
    "send the body again, faster or in smaller parts; nothing of it was stored"
  )

/** The memory that the bodies of all requests use together. Uploads that take long have to give their memory to those that need it. */
export class BodyMemory {
  readonly limit: number
  bytes = 0
  readonly #slowMs: number
  /** The bodies that are being received, the oldest first. */
  readonly #uploads = new Set<Upload>()

  /** `slowMs`: after how long an upload may be refused in favour of others. */
  constructor(limit: number, slowMs: number) {
    this.limit = limit
    this.#slowMs = slowMs
  }

  /** The share of one request, which grows with `grow` and ends with `release`. */
  share(): BodyShare {
    let own = 0
    let isOpen = true
    const release = (): void => {
      isOpen = false
      this.bytes -= own
      own = 0
    }
    return {
      grow: (bytes) => {
        if (!isOpen) return ended()
        // one body is accepted whatever its size, because otherwise a body above the limit never would be
        if (this.bytes > own && this.bytes + bytes > this.limit && !this.#freeSlow(bytes, own)) {
          const message = `the bodies of running requests have ${this.bytes} bytes; the limit is ${this.limit}`
          return new Problem(
            429,
            "overloaded",
            message,
            "send the request again after Retry-After seconds",
            retryAfterSeconds
          )
        }
        // the request itself may have been one of the slow ones
        if (!isOpen) return ended()
        own += bytes
        this.bytes += bytes
        return undefined
      },
      receiving: (refuse) => {
        const since = performance.now()
        const upload: Upload = {
          since,
          refuse: () => {
            release()
            const seconds = Math.round((performance.now() - since) / 1000)
            refuse(
              tooSlow(`the body was not complete after ${seconds} s, and its memory was needed for other requests`)
            )
          }
        }
        this.#uploads.add(upload)
        return () => void this.#uploads.delete(upload)
      },
      release
    }
  }

  /** Refuses slow uploads until `bytes` are free. Returns whether they are. */
  #freeSlow(bytes: number, own: number): boolean {
    const latest = performance.now() - this.#slowMs
    for (const upload of this.#uploads) {
      if (upload.since > latest) break
      this.#uploads.delete(upload)
      upload.refuse()
      if (this.bytes <= own || this.bytes + bytes <= this.limit) return true
    }
    return false
  }
}

const tooLarge = (limit: number): Problem =>
  new Problem(
    413,
    "body_too_large",
    `the body has more than ${limit} bytes`,
    "send it in several requests; nothing of it was stored"
  )

// If a connection is closed while its client still sends, the client loses the response. So the rest is read and dropped, for a while.
const readAway = (payload: Readable): Promise<void> =>
  new Promise((done) => {
    if (payload.readableEnded || payload.destroyed) return done()
    const timer = setTimeout(done, 2_000)
    const settle = () => {
      clearTimeout(timer)
      done()
    }
    payload.once("end", settle).once("close", settle).once("error", settle).resume()
  })

// With events, because an async iterator would take a tenth of the time of a small request.
const collect = (payload: Readable, limits: Limits, share: BodyShare): Promise<Buffer | Problem> =>
  new Promise((done) => {
    const { bodyBytes, bodyIdleMs } = limits
    const chunks: Array<Buffer> = []
    let size = 0
    const settle = (result: Buffer | Problem): void => {
      clearTimeout(timer)
      complete()
      payload.off("data", take).off("end", finish).off("error", gone).off("close", gone)
      done(result)
    }
    const take = (chunk: Buffer): void => {
      size += chunk.length
      if (size > bodyBytes) return settle(tooLarge(bodyBytes))
      const problem = share.grow(chunk.length)
      if (problem !== undefined) return settle(problem)
      timer.refresh()
      chunks.push(chunk)
    }
    const finish = (): void => settle(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks))
    const gone = (): void =>
      settle(new Problem(400, "invalid_request", "the body ended before it was complete", "send the request again"))
    const complete = share.receiving(settle)
    const timer = setTimeout(() => settle(tooSlow(`nothing of the body arrived for ${bodyIdleMs} ms`)), bodyIdleMs)
    // the client may have disconnected before anyone listened, and it may disconnect without an error
    if (payload.destroyed) return gone()
    payload.on("data", take).once("end", finish).once("error", gone).once("close", gone)
  })

/** Decompresses in pieces, so that a body uses as much memory as it has bytes, and a decompression bomb no more than the limit. */
const unzip = (packed: Buffer, limit: number, share: BodyShare): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const chunks: Array<Buffer> = []
    let size = 0
    const gunzip = createGunzip({ chunkSize: 64 * 1024 })
    const refuse = (problem: Problem): void => {
      gunzip.destroy()
      reject(problem)
    }
    gunzip.on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size > limit) return refuse(tooLarge(limit))
      const problem = share.grow(chunk.length)
      if (problem !== undefined) return refuse(problem)
      chunks.push(chunk)
    })
    gunzip.once("end", () => resolve(Buffer.concat(chunks, size)))
    gunzip.once("error", ({ message }) =>
      refuse(
        new Problem(
          400,
          "invalid_gzip",
          `the body is not valid gzip: ${message}`,
          "send a valid gzip body, or an uncompressed one without Content-Encoding"
        )
      )
    )
    gunzip.end(packed)
  })

/**
 * The text of a body, without a byte order mark. `isLines`: each line is an event of its own. Rejects with a `Problem`: 413 above the limit, 415 for an encoding other than gzip, 400 for
 * invalid gzip and invalid UTF-8, 408 for a body that stalls, 429 if all bodies together are too large.
 */
export const textOf = async (
  payload: Readable,
  headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>,
  share: BodyShare,
  limits: Limits,
  isLines = false
): Promise<string> => {
  const encoding = String(headers["content-encoding"] ?? "identity")
    .trim()
    .toLowerCase()
  if (encoding !== "identity" && encoding !== "gzip" && encoding !== "x-gzip") {
    throw new Problem(
      415,
      "unsupported_encoding",
      `Content-Encoding ${encoding} is not supported`,
      "send the body uncompressed, or with gzip"
    )
  }
  const isLarge = Number(headers["content-length"]) > limits.bodyBytes
  const raw = isLarge ? tooLarge(limits.bodyBytes) : await collect(payload, limits, share)
  if (raw instanceof Problem) {
    // the rest of a body that is too slow would take too long as well
    if (raw.status !== 408) await readAway(payload)
    throw raw
  }
  const body = encoding === "identity" ? raw : await unzip(raw, limits.bodyBytes, share)
  // in a line of several, what is not UTF-8 becomes text that is not well-formed, which is that event's fault
  if (!isUtf8(body) && !(isLines && body.includes("\n")))
    throw new Problem(400, "invalid_utf8", "the body is not valid UTF-8", "encode the body as UTF-8")
  const text = bytesAsText(body)
  return text.charCodeAt(0) === 0xfe_ff ? text.slice(1) : text
}
