// Packs LZ4 frames as Kafka's Java clients expect them (independent blocks of 64 KiB without checksums), and unpacks any frame. Pure.

const blockBytes = 64 << 10
/** A frame's header: magic number, version 1 with independent blocks, blocks of 64 KiB, and the checksum of the latter two. */
const head = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82])
const bare = 0x80000000
/** No match starts in the last 12 bytes of a block or reaches its last five. */
const matchLimit = 12
const lastLiterals = 5

const table = new Int32Array(1 << 13)

const lengthOf = (out: Buffer, at: number, length: number) => {
  let left = length
  for (; left >= 255; left -= 255) out[at++] = 255
  out[at++] = left
  return at
}
const sequence = (
  out: Buffer,
  to: number,
  from: Buffer,
  anchor: number,
  end: number,
  offset: number,
  match: number
) => {
  const literals = end - anchor
  let at = to
  out[at++] = (Math.min(literals, 15) << 4) | Math.min(match, 15)
  if (literals >= 15) at = lengthOf(out, at, literals - 15)
  at += from.copy(out, at, anchor, end)
  if (offset === 0) return at
  out[at++] = offset & 255
  out[at++] = offset >> 8
  return match >= 15 ? lengthOf(out, at, match - 15) : at
}

/** Packs the block from `begin` to `end` into `out`. Returns how many bytes it takes; 0 if it would not become smaller. */
const packBlock = (bytes: Buffer, begin: number, end: number, out: Buffer): number => {
  table.fill(-1)
  let anchor = begin
  let to = 0
  const last = end - matchLimit
  for (let at = begin; at < last;) {
    const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    const slot = Math.imul(word, 0x9e3779b1) >>> 19
    const there = table[slot]!
    table[slot] = at
    if (
      there < 0 ||
      bytes[there] !== bytes[at] ||
      bytes[there + 1] !== bytes[at + 1] ||
      bytes[there + 2] !== bytes[at + 2] ||
      bytes[there + 3] !== bytes[at + 3] ||
      at - there > 0xffff
    ) {
      // steps grow while nothing repeats
      at += 1 + ((at - anchor) >> 6)
      continue
    }
    let stop = at + 4
    for (const limit = end - lastLiterals; stop < limit && bytes[stop] === bytes[there + stop - at];) stop++
    to = sequence(out, to, bytes, anchor, at, at - there, stop - at - 4)
    at = anchor = stop
  }
  to = sequence(out, to, bytes, anchor, end, 0, 0)
  return to < end - begin ? to : 0
}

/** Packs bytes as one frame. */
export const pack = (bytes: Buffer): Buffer => {
  const parts: Array<Buffer> = [head]
  const out = Buffer.allocUnsafe(blockBytes + (blockBytes >> 7) + 64)
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const end = Math.min(bytes.length, at + blockBytes)
    const packed = packBlock(bytes, at, end, out)
    const size = Buffer.alloc(4)
    size.writeUInt32LE(packed === 0 ? (bare | (end - at)) >>> 0 : packed)
    parts.push(size, packed === 0 ? bytes.subarray(at, end) : Buffer.from(out.subarray(0, packed)))
  }
  parts.push(Buffer.alloc(4))
  return Buffer.concat(parts)
}

/** Unpacks a block into `out` from `start` on. Returns where the output ends. Throws an Error if the block is damaged. */
const unpackBlock = (bytes: Buffer, begin: number, end: number, out: Buffer, start: number): number => {
  let to = start
  for (let at = begin; at < end;) {
    const token = bytes[at++]!
    let literals = token >> 4
    if (literals === 15) for (let more = 255; more === 255; literals += more) more = bytes[at++] ?? 0
    to += bytes.copy(out, to, at, at + literals)
    at += literals
    if (at >= end) break
    const offset = bytes[at]! | (bytes[at + 1]! << 8)
    at += 2
    let match = (token & 15) + 4
    if (match === 19) for (let more = 255; more === 255; match += more) more = bytes[at++] ?? 0
    if (offset === 0 || offset > to || to + match > out.length) throw new Error("an LZ4 block is damaged")
    for (let from = to - offset, stop = to + match; to < stop;) out[to++] = out[from++]!
  }
  return to
}

/** Unpacks a frame. Throws an Error if the bytes are not one. */
export const unpack = (bytes: Buffer): Buffer => {
  if (bytes.length < 7 || bytes.readUInt32LE(0) !== 0x184d2204) throw new Error("not an LZ4 frame")
  const flags = bytes[4]!
  const most = 1 << (8 + 2 * ((bytes[5]! >> 4) & 7))
  let out = Buffer.allocUnsafe(Math.max(most, bytes.length * 4))
  let to = 0
  for (let at = 7 + ((flags & 8) === 0 ? 0 : 8); at + 4 <= bytes.length;) {
    const size = bytes.readUInt32LE(at)
    at += 4
    if (size === 0) break
    const length = size & 0x7fffffff
    if (to + most > out.length) out = Buffer.concat([out.subarray(0, to)], out.length * 2 + most)
    if (size >= bare) to += bytes.copy(out, to, at, at + length)
    else to = unpackBlock(bytes, at, at + length, out, to)
    // a block's checksum follows it
    at += length + ((flags & 16) === 0 ? 0 : 4)
  }
  return out.subarray(0, to)
}
