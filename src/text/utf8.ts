// Converts text to bytes and back without loss, for any text and any bytes. Pure.
//
// Bytes that are not UTF-8 become text that is not well-formed, so that `isStorable` recognizes it and nothing is lost: a byte XX becomes
// U+DCXX alone, as in Python's `surrogateescape`. Half of a surrogate pair outside of U+DC80..U+DCFF takes the three bytes that it would
// have in UTF-8.

const isHigh = (code: number) => code >= 0xd800 && code <= 0xdbff
const isLow = (code: number) => code >= 0xdc00 && code <= 0xdfff
/** Whether the code stands for a single byte that is not UTF-8. */
const isByte = (code: number) => code >= 0xdc80 && code <= 0xdcff

/** The bytes of any JavaScript text. Well-formed text becomes plain UTF-8. */
export const bytesOf = (text: string): Buffer => {
  if (text.isWellFormed()) return Buffer.from(text, "utf8")
  const parts: Array<Buffer> = []
  let from = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (isHigh(code) && isLow(text.charCodeAt(i + 1))) i++
    else if (isHigh(code) || isLow(code)) {
      parts.push(
        Buffer.from(text.slice(from, i), "utf8"),
        isByte(code)
          ? Buffer.of(code & 0xff)
          : Buffer.of(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63))
      )
      from = i + 1
    }
  }
  return Buffer.concat([...parts, Buffer.from(text.slice(from), "utf8")])
}

/** How many bytes the character at `i` has in UTF-8; 0 if no valid one begins there. */
const sizeAt = (bytes: Uint8Array, i: number, to: number): number => {
  const first = bytes[i]!
  const size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0
  if (i + size > to) return 0
  for (let n = 1; n < size; n++) if ((bytes[i + n]! & 0xc0) !== 0x80) return 0
  const second = bytes[i + 1]!
  const isOutside =
    (first === 0xe0 && second < 0xa0) ||
    (first === 0xed && second > 0x9f) ||
    (first === 0xf0 && second < 0x90) ||
    (first === 0xf4 && second > 0x8f)
  return isOutside ? 0 : size
}
/** Half of a surrogate pair that lies at `i` as three bytes; undefined if there is none, or if `bytesOf` would write it otherwise. */
const halfAt = (bytes: Uint8Array, i: number, to: number): number | undefined => {
  if (bytes[i] !== 0xed || i + 2 >= to || bytes[i + 1]! < 0xa0 || bytes[i + 1]! > 0xbf) return undefined
  if ((bytes[i + 2]! & 0xc0) !== 0x80) return undefined
  const code = 0xd000 | ((bytes[i + 1]! & 63) << 6) | (bytes[i + 2]! & 63)
  return isByte(code) ? undefined : code
}
const escaped = (...bytes: ReadonlyArray<number>) => String.fromCharCode(...bytes.map((byte) => 0xdc00 | byte))
/** Appends a half or an escaped byte. Halves before it that would become a pair with it, or with what one of them becomes, are escaped. */
const append = (text: string, code: number): string => {
  let end = text.length
  if (isLow(code)) while (end > 0 && isHigh(text.charCodeAt(end - 1))) end--
  let all = text.slice(0, end)
  for (let i = end; i < text.length; i++) {
    const half = text.charCodeAt(i)
    all += escaped(0xe0 | (half >> 12), 0x80 | ((half >> 6) & 63), 0x80 | (half & 63))
  }
  return all + String.fromCharCode(code)
}

/** The text of the bytes from `from` to `to`. `bytesOf` returns the same bytes for it. */
export const textOf = (bytes: Uint8Array, from: number = 0, to: number = bytes.length): string => {
  // a view for each text would cost more than a short text itself
  const view = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const text = view.toString("utf8", from, to)
  if (!text.includes("\ufffd")) return text
  let all = ""
  let start = from
  for (let i = from; i < to;) {
    const size = sizeAt(bytes, i, to)
    if (size > 0) {
      i += size
      continue
    }
    all += view.toString("utf8", start, i)
    const half = halfAt(bytes, i, to)
    all = append(all, half ?? 0xdc00 | bytes[i]!)
    start = i += half === undefined ? 1 : 3
  }
  return all + view.toString("utf8", start, to)
}
