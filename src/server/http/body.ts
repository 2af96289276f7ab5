// Takes in request bodies: within a limit each, within a limit together, unpacked, as text of valid UTF-8. It knows nothing of events.
import { isUtf8 } from "node:buffer"
import type { Readable } from "node:stream"
import { promisify } from "node:util"
import { gunzip } from "node:zlib"
import type { Limits } from "./limits.ts"
import { Problem, retryAfterSeconds } from "./problem.ts"

const unpack = promisify(gunzip)

/** Bytes that all requests hold together. */
export class Held {
  readonly limit: number
  bytes = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** A share of the bytes, which grows as it is asked to and ends with `release`. */
  share(): Share {
    let own = 0
    return {
      grow: (bytes) => {
        // one body is let in however small the limit is, or none of its size ever would be
        if (this.bytes > own && this.bytes + bytes > this.limit) {
          const message = `requests of ${this.bytes} bytes are being handled, ${this.limit} are allowed at once`
          return new Problem(
            429,
            "overloaded",
            message,
            "send the request again after Retry-After seconds",
            retryAfterSeconds
          )
        }
        own += bytes
        this.bytes += bytes
        return undefined
      },
      release: () => {
        this.bytes -= own
        own = 0
      }
    }
  }
}
/** What one request holds. */
export interface Share {
  /** A `Problem` 429 where there is no room. */
  readonly grow: (bytes: number) => Problem | undefined
  readonly release: () => void
}

const tooLarge = (limit: number): Problem =>
  new Problem(
    413,
    "body_too_large",
    `the body has more than ${limit} bytes`,
    "send it in several requests; nothing of it was taken"
  )

// A connection that closes while its client still sends loses the answer, so the rest is read away, for a while.
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

// By events, since an async iterator costs a small request a tenth of its time.
const collect = (payload: Readable, limit: number, share: Share): Promise<Buffer | Problem> =>
  new Promise((done) => {
    const chunks: Array<Buffer> = []
    let size = 0
    const refuse = (problem: Problem): void => {
      payload.off("data", take).off("end", finish)
      done(problem)
    }
    const take = (chunk: Buffer): void => {
      size += chunk.length
      if (size > limit) return refuse(tooLarge(limit))
      const problem = share.grow(chunk.length)
      if (problem !== undefined) return refuse(problem)
      chunks.push(chunk)
    }
    const finish = (): void => {
      payload.off("error", gone).off("close", gone)
      done(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks))
    }
    const gone = (): void => done(new Problem(400, "invalid_request", "the body ended early", "send it again"))
    // a client that goes away may do so without an error
    payload.on("data", take).once("end", finish).once("error", gone).once("close", gone)
  })

const unzip = async (packed: Buffer, limit: number, share: Share): Promise<Buffer> => {
  // what it will grow to is not known, and a bomb must not outgrow the room
  const problem = share.grow(limit)
  if (problem !== undefined) throw problem
  try {
    const body = await unpack(packed, { maxOutputLength: limit })
    share.grow(body.length - limit)
    return body
  } catch (error) {
    if ((error as { readonly code?: string }).code === "ERR_BUFFER_TOO_LARGE") throw tooLarge(limit)
    throw new Problem(
      400,
      "invalid_gzip",
      `the body is no gzip: ${(error as Error).message}`,
      "send it again, or without Content-Encoding"
    )
  }
}

/**
 * The text of a body, without a byte order mark. Rejects with a `Problem`: 413 above the limit, 415 for another encoding than gzip, 400
 * for broken gzip and for bytes that are not UTF-8, 429 where all bodies together hold too much.
 */
export const textOf = async (
  payload: Readable,
  headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>,
  share: Share,
  limits: Limits
): Promise<string> => {
  const encoding = String(headers["content-encoding"] ?? "identity")
    .trim()
    .toLowerCase()
  if (encoding !== "identity" && encoding !== "gzip" && encoding !== "x-gzip") {
    throw new Problem(
      415,
      "unsupported_encoding",
      `Content-Encoding ${encoding} is not known here`,
      "send the body plain or with gzip"
    )
  }
  const isLarge = Number(headers["content-length"]) > limits.bodyBytes
  const raw = isLarge ? tooLarge(limits.bodyBytes) : await collect(payload, limits.bodyBytes, share)
  if (raw instanceof Problem) {
    await readAway(payload)
    throw raw
  }
  const body = encoding === "identity" ? raw : await unzip(raw, limits.bodyBytes, share)
  if (!isUtf8(body)) throw new Problem(400, "invalid_utf8", "the body is not UTF-8", "encode the body as UTF-8")
  const text = body.toString("utf8")
  return text.charCodeAt(0) === 0xfe_ff ? text.slice(1) : text
}
