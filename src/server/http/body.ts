// Reads request bodies as text: with a limit for each and for all together, decompressed, and checked to be UTF-8.
import { isUtf8 } from "node:buffer"
import type { Readable } from "node:stream"
import { promisify } from "node:util"
import { gunzip } from "node:zlib"
import type { Limits } from "./limits.ts"
import { Problem, retryAfterSeconds } from "./problem.ts"

const unpack = promisify(gunzip)

/** The memory that the bodies of all requests use together. */
export class BodyMemory {
  readonly limit: number
  bytes = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** The share of one request, which grows with `grow` and ends with `release`. */
  share(): BodyShare {
    let own = 0
    return {
      grow: (bytes) => {
        // one body is accepted whatever its size, because otherwise a body above the limit never would be
        if (this.bytes > own && this.bytes + bytes > this.limit) {
          const message = `the bodies of running requests have ${this.bytes} bytes; the limit is ${this.limit}`
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
/** What one request uses of the memory for bodies. */
export interface BodyShare {
  /** Adds bytes to the share. Returns a `Problem` 429 if all bodies together would exceed the limit. */
  readonly grow: (bytes: number) => Problem | undefined
  /** Gives the whole share back. */
  readonly release: () => void
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
const collect = (payload: Readable, limit: number, share: BodyShare): Promise<Buffer | Problem> =>
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
    const gone = (): void =>
      done(new Problem(400, "invalid_request", "the body ended before it was complete", "send the request again"))
    // a client may disconnect without an error
    payload.on("data", take).once("end", finish).once("error", gone).once("close", gone)
  })

const unzip = async (packed: Buffer, limit: number, share: BodyShare): Promise<Buffer> => {
  // the size after decompression is not known yet, and a decompression bomb must not exceed the limit
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
      `the body is not valid gzip: ${(error as Error).message}`,
      "send a valid gzip body, or an uncompressed one without Content-Encoding"
    )
  }
}

/**
 * The text of a body, without a byte order mark. Rejects with a `Problem`: 413 above the limit, 415 for an encoding other than gzip, 400 for
 * invalid gzip and invalid UTF-8, 429 if all bodies together are too large.
 */
export const textOf = async (
  payload: Readable,
  headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>,
  share: BodyShare,
  limits: Limits
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
  const raw = isLarge ? tooLarge(limits.bodyBytes) : await collect(payload, limits.bodyBytes, share)
  if (raw instanceof Problem) {
    await readAway(payload)
    throw raw
  }
  const body = encoding === "identity" ? raw : await unzip(raw, limits.bodyBytes, share)
  if (!isUtf8(body)) throw new Problem(400, "invalid_utf8", "the body is not valid UTF-8", "encode the body as UTF-8")
  const text = body.toString("utf8")
  return text.charCodeAt(0) === 0xfe_ff ? text.slice(1) : text
}
