// Finds the elements of messages within the bytes of a segment's `meta`, and copies only texts with escapes. Pure.
import { traceIdOf } from "../../log/envelope.ts"
import { bytesOf, textOf } from "../protocol/protocol.ts"

/** The elements of a message in `meta` by their index, and `traceId`, which is part of another. */
export const element = {
  key: 0,
  eventTime: 1,
  eventId: 2,
  tenant: 3,
  traceparent: 4,
  schemaVersion: 5,
  userHeaders: 6,
  traceId: 7
} as const
const { eventTime, schemaVersion, traceId, traceparent, userHeaders } = element

const quote = 34
const backslash = 92
const comma = 44
const open = 91
const close = 93
const newline = 10
const zero = 48
const nine = 57
/** The size of a valid traceparent, which is ASCII. */
const traceparentSize = 55

/** The same bytes, as the encoder copies them. */
export const viewOf = ({ buffer, byteLength, byteOffset }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength)

/** One message's elements in `meta`, found but not copied. Element n lies from `from[n]` to `to[n]` of `source[n]`; -1 means null. */
export class SegmentMeta {
  readonly source: Array<DataView> = []
  readonly from = new Int32Array(8)
  readonly to = new Int32Array(8)
  /** Bit n is set if element n was a text with escapes; its source is the decoded text. */
  escaped = 0
  private bytes: Uint8Array = new Uint8Array(0)
  private view = viewOf(this.bytes)
  private at = 0

  begin(bytes: Uint8Array) {
    this.bytes = bytes
    this.view = viewOf(bytes)
    this.at = 0
    this.skip()
    if (bytes[this.at++] !== open) throw new SyntaxError("meta is not an array")
  }
  private skip() {
    const { bytes } = this
    let { at } = this
    for (let byte = bytes[at]; byte === 32 || byte === newline || byte === 13 || byte === 9; byte = bytes[at]) at++
    this.at = at
  }
  /** Finds the next message's elements; false after the last message. */
  next(): boolean {
    const { bytes, from } = this
    this.skip()
    if (bytes[this.at] === comma) {
      this.at++
      this.skip()
    }
    if (bytes[this.at] === close) return false
    if (bytes[this.at++] !== open) throw new SyntaxError("an element of meta is not an array")
    from.fill(-1)
    this.escaped = 0
    for (let n = 0; ; n++) {
      this.skip()
      const byte = bytes[this.at]
      if (byte === close) break
      if (byte === quote) this.text(n)
      else this.other(n)
      this.skip()
      if (bytes[this.at] === comma) this.at++
      else if (bytes[this.at] !== close) throw new SyntaxError("an element of meta does not end")
    }
    this.at++
    return true
  }
  private text(n: number) {
    const { bytes } = this
    const start = ++this.at
    let at = start
    let escaped = false
    for (; bytes[at] !== quote; at++) {
      if (bytes[at] === backslash) {
        escaped = true
        at++
      } else if (at >= bytes.length) throw new SyntaxError("a text in meta does not end")
    }
    this.at = at + 1
    if (n > userHeaders) return
    if (escaped) {
      this.replace(n, bytesOf(JSON.parse(bytesIn(this.view, start - 1, at + 1).toString("utf8")) as string))
      this.escaped |= 1 << n
    } else this.set(n, this.view, start, at)
  }
  /** A number, null, or an object of headers, which may hold texts with any bytes. */
  private other(n: number) {
    const { bytes } = this
    const start = this.at
    let at = start
    for (let depth = 0; at < bytes.length; at++) {
      const byte = bytes[at]!
      if (byte === quote) {
        for (at++; bytes[at] !== quote && at < bytes.length; at++) if (bytes[at] === backslash) at++
      } else if (byte === 123) depth++
      else if (byte === 125) depth--
      else if (depth === 0 && (byte === comma || byte === close || byte <= 32)) break
    }
    this.at = at
    if (n <= userHeaders && bytes[start] !== 110) this.set(n, this.view, start, at)
  }
  private set(n: number, source: DataView, from: number, to: number) {
    this.source[n] = source
    this.from[n] = from
    this.to[n] = to
  }
  private replace(n: number, bytes: Uint8Array) {
    this.set(n, viewOf(bytes), 0, bytes.length)
  }
  /** Brings the elements into the form of the log's headers, and finds the trace id. */
  normalize() {
    this.canonical(eventTime)
    if (this.from[schemaVersion]! >= 0) this.canonical(schemaVersion)
    const from = this.from[traceparent]!
    if (from < 0) return
    const source = this.source[traceparent]!
    let plain = this.to[traceparent]! - from === traceparentSize
    for (let i = from; plain && i < from + 35; i++) plain = source.getUint8(i) < 128
    if (plain) return this.set(traceId, source, from + 3, from + 35)
    this.replace(traceId, bytesOf(traceIdOf(this.string(traceparent)) ?? ""))
  }
  /** An element as text; undefined if it is null. */
  string(n: number): string | undefined {
    if (this.from[n]! < 0) return undefined
    return textOf(bytesIn(this.source[n]!, this.from[n]!, this.to[n]!))
  }
  /** Replaces a number by what `String` gives for it, if it is written differently. */
  private canonical(n: number) {
    const from = this.from[n]!
    if (from < 0) throw new SyntaxError("a message in meta has no event time")
    const to = this.to[n]!
    const source = this.source[n]!
    let plain = to - from <= 15 && (to - from === 1 || source.getUint8(from) !== zero)
    for (let i = from; plain && i < to; i++) plain = source.getUint8(i) >= zero && source.getUint8(i) <= nine
    if (plain) return
    this.replace(n, Buffer.from(String(Number(this.string(n)))))
  }
}
const bytesIn = ({ buffer, byteOffset }: DataView, from: number, to: number) =>
  Buffer.from(buffer, byteOffset + from, to - from)
