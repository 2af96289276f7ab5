// Converts text to bytes and back without loss: UTF-8, in which half a surrogate pair takes the three bytes that it would have alone. Pure.

const high = (code: number) => code >= 0xd800 && code <= 0xdbff
const low = (code: number) => code >= 0xdc00 && code <= 0xdfff

/** The bytes of any JavaScript text. Well-formed text becomes plain UTF-8. */
export const bytesOf = (text: string): Buffer => {
  if (text.isWellFormed()) return Buffer.from(text, "utf8")
  const parts: Array<Buffer> = []
  let from = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (high(code) && low(text.charCodeAt(i + 1))) i++
    else if (high(code) || low(code)) {
      parts.push(
        Buffer.from(text.slice(from, i), "utf8"),
        Buffer.of(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63))
      )
      from = i + 1
    }
  }
  return Buffer.concat([...parts, Buffer.from(text.slice(from), "utf8")])
}

/** The text of the bytes from `from` to `to`, the inverse of `bytesOf`. Bytes that are neither UTF-8 nor half a pair become U+FFFD. */
export const textOf = (bytes: Buffer, from: number, to: number): string => {
  const text = bytes.toString("utf8", from, to)
  if (!text.includes("\ufffd")) return text
  let all = ""
  for (let i = from, start = from; ; i++) {
    const half =
      i + 2 < to &&
      bytes[i] === 0xed &&
      bytes[i + 1]! >= 0xa0 &&
      bytes[i + 1]! <= 0xbf &&
      (bytes[i + 2]! & 0xc0) === 0x80
    if (!half && i < to) continue
    all += bytes.toString("utf8", start, Math.min(i, to))
    if (i >= to) return all
    all += String.fromCharCode(0xd000 | ((bytes[i + 1]! & 63) << 6) | (bytes[i + 2]! & 63))
    start = i + 3
    i += 2
  }
}
