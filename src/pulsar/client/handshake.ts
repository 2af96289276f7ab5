// Checks whether a broker accepts this client, by the first command of Pulsar's protocol. The native client would keep trying and hide the reason.
import { connect as overTcp, type Socket } from "node:net"
import { connect as overTls } from "node:tls"
import { failureOf, mixedTls, PulsarFailure } from "./errors.ts"
import { defaults, type PulsarOptions } from "./options.ts"

const commands = { connect: 2, connected: 3, error: 14 } as const
/** Any version whose sign-in is that of today's clients. */
const protocolVersion = 20
/** No answer of a broker to the first command is as large. */
const mostBytes = 64 * 1_024

const varint = (value: number): ReadonlyArray<number> => {
  const bytes: Array<number> = []
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128)
  return [...bytes, value]
}
const number = (field: number, value: number) => Buffer.from([...varint(field << 3), ...varint(value)])
const text = (field: number, value: string | Buffer) => {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([...varint((field << 3) | 2), ...varint(bytes.length)]), bytes])
}
const size = (bytes: number) => {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32BE(bytes)
  return buffer
}

/** The frame that signs in. */
const connectFrame = ({ tls, token }: PulsarOptions): Buffer => {
  const [method, data] = token !== undefined ? ["token", token] : tls?.cert !== undefined ? ["tls", ""] : ["none", ""]
  const connect = Buffer.concat([text(1, "millrace"), text(3, data), number(4, protocolVersion), text(5, method)])
  const command = Buffer.concat([number(1, commands.connect), text(2, connect)])
  return Buffer.concat([size(command.length + 4), size(command.length), command])
}
/** The number and text fields of a protocol message, by field number. */
const fieldsOf = (bytes: Buffer): Map<number, number | Buffer> => {
  const fields = new Map<number, number | Buffer>()
  let at = 0
  const next = () => {
    let value = 0
    for (let scale = 1; at < bytes.length; scale *= 128) {
      const byte = bytes[at++]!
      value += (byte & 127) * scale
      if (byte < 128) break
    }
    return value
  }
  while (at < bytes.length) {
    const tag = next()
    if ((tag & 7) === 0) fields.set(tag >> 3, next())
    else if ((tag & 7) === 2) {
      const length = next()
      fields.set(tag >> 3, bytes.subarray(at, at + length))
      at += length
    } else break
  }
  return fields
}
/** The broker's reason for refusing the client; undefined if it accepts the client. */
const refusalIn = (frame: Buffer): string | undefined => {
  const command = fieldsOf(frame.subarray(8))
  const error = command.get(commands.error)
  if (command.get(1) !== commands.error || !(error instanceof Buffer)) return undefined
  const words = fieldsOf(error).get(3)
  return words instanceof Buffer ? words.toString("utf8") : "no reason given"
}

interface Address {
  readonly host: string
  readonly port: number
  readonly secure: boolean
}
/** The brokers that a URL names. */
const addressesOf = (url: string): ReadonlyArray<Address> => {
  const [scheme = "", hosts = ""] = url.split("://")
  const secure = scheme === "pulsar+ssl"
  return hosts.split(",").flatMap((text) => {
    if (!URL.canParse(`tcp://${text}`)) return []
    const { hostname, port } = new URL(`tcp://${text}`)
    const usual = secure ? 6_651 : 6_650
    return [{ host: hostname.replace(/^\[|\]$/g, ""), port: port === "" ? usual : Number(port), secure }]
  })
}

/** Signs in to one broker and disconnects. Rejects with a `PulsarFailure`. */
const signIn = async (options: PulsarOptions, { secure, ...to }: Address, timeoutMs: number): Promise<void> => {
  let socket: Socket | undefined
  let timer: NodeJS.Timeout | undefined
  try {
    const frame = await new Promise<Buffer>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error("timed out")), Math.min(timeoutMs, defaults.timeoutMs))
      const opened = secure ? overTls({ ...to, ...options.tls }) : overTcp(to)
      socket = opened
      let got = Buffer.alloc(0)
      opened.on("data", (data) => {
        got = Buffer.concat([got, data])
        if ((got.length >= 4 && got.length >= got.readUInt32BE() + 4) || got.length > mostBytes) resolve(got)
      })
      opened.on("error", reject)
      opened.on("close", () => reject(new Error("AlreadyClosed")))
      opened.write(connectFrame(options))
    })
    const words = refusalIn(frame)
    if (words !== undefined) throw failureOf(new Error(`Authentication refused: ${words}`), options.url)
  } catch (cause) {
    const found = failureOf(cause, options.url)
    // a broker that is stopping does so as well
    const isUnanswered =
      found.retryable && socket?.connecting === false && /AlreadyClosed|ECONNRESET|hang up/.test(found.message)
    throw isUnanswered
      ? new Unanswered("lost", true, `${options.url} accepts connections and does not answer; perhaps ${mixedTls}`)
      : found
  } finally {
    clearTimeout(timer)
    socket?.destroy()
  }
}
/** The broker accepted the connection and closed it without an answer. */
class Unanswered extends PulsarFailure {}

/**
 * Signs in to the first broker of the URL that accepts this client, and disconnects. Rejects with a `PulsarFailure` if none does. Waits up to
 * `timeoutMs` for each broker.
 */
export const checkSignIn = async (options: PulsarOptions, timeoutMs: number): Promise<void> => {
  let failure: unknown = new PulsarFailure("other", false, `${options.url} names no broker`)
  for (const address of addressesOf(options.url)) {
    try {
      return await signIn(options, address, timeoutMs)
    } catch (cause) {
      failure = cause
    }
  }
  throw failure
}

/**
 * Why the first broker of the URL refuses this client: a certificate that one side does not trust, the token, a port for the other kind of
 * connection. Undefined if it accepts the client or cannot be reached. Never rejects. Waits up to `timeoutMs`.
 */
export const findRefusal = async (options: PulsarOptions, timeoutMs: number): Promise<PulsarFailure | undefined> => {
  const [first] = addressesOf(options.url)
  if (first === undefined) return undefined
  try {
    await signIn(options, first, timeoutMs)
    return undefined
  } catch (cause) {
    const failure = cause as PulsarFailure
    return failure.retryable && !(failure instanceof Unanswered) ? undefined : failure
  }
}
