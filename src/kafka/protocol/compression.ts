// Kafka's compression codecs, for this adapter's batches and, after `register`, for kafkajs's producers and consumers.
import { createRequire } from "node:module"
import * as zlib from "node:zlib"
import { KafkaJs } from "./kafkajs.ts"
import * as lz4 from "./lz4.ts"
import type { Compression } from "./options.ts"

const require = createRequire(import.meta.url)
const snappy = require("snappyjs") as {
  compress: (_: Uint8Array) => Uint8Array
  uncompress: (_: Uint8Array) => Uint8Array
}
/** A compression codec. */
export interface Codec {
  /** Its number in a batch's attributes. */
  readonly id: number
  readonly pack: (bytes: Buffer) => Buffer
  readonly unpack: (bytes: Buffer) => Buffer
}
const view = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const xerial = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00])
const xerialHead = 16
const xerialBlock = 32 << 10
// Java clients write a stream: a header, then blocks with their lengths. Others write one block without a header.
const unpackSnappy = (bytes: Buffer): Buffer => {
  if (bytes.length < xerialHead || !bytes.subarray(0, 8).equals(xerial)) return view(snappy.uncompress(bytes))
  const parts: Array<Uint8Array> = []
  for (let at = xerialHead; at < bytes.length;) {
    const size = bytes.readUInt32BE(at)
    parts.push(view(snappy.uncompress(bytes.subarray(at + 4, at + 4 + size))))
    at += 4 + size
  }
  return Buffer.concat(parts)
}
const packSnappy = (bytes: Buffer): Buffer => {
  const head = Buffer.alloc(xerialHead)
  xerial.copy(head)
  head.writeUInt32BE(1, 8)
  head.writeUInt32BE(1, 12)
  const parts: Array<Uint8Array> = [head]
  for (let at = 0; at < bytes.length; at += xerialBlock) {
    const block = view(snappy.compress(bytes.subarray(at, at + xerialBlock)))
    const size = Buffer.alloc(4)
    size.writeUInt32BE(block.length)
    parts.push(size, block)
  }
  return Buffer.concat(parts)
}

// Node takes memory in pieces of 16 KiB, which costs more than the work where a batch has many of them; a small batch should not take a large piece.
// A batch packed rarely takes more than a quarter of its size.
const zstdPiece = (bytes: number, most: number) => Math.min(most, Math.max(4 << 10, bytes))
const zstd = {
  pack: (bytes: Buffer): Buffer =>
    zlib.zstdCompressSync(bytes, {
      chunkSize: zstdPiece(bytes.length >> 2, 256 << 10),
      params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 }
    }),
  // batches of events are ten to twenty times as large as they come
  unpack: (bytes: Buffer): Buffer =>
    zlib.zstdDecompressSync(bytes, { chunkSize: zstdPiece(bytes.length * 16, 1 << 20) })
}

/** The codecs by name. */
export const codecs: Readonly<Record<Exclude<Compression, "none">, Codec>> = {
  gzip: { id: 1, pack: (bytes) => zlib.gzipSync(bytes, { level: 1 }), unpack: (bytes) => zlib.gunzipSync(bytes) },
  snappy: { id: 2, pack: packSnappy, unpack: unpackSnappy },
  lz4: { id: 3, pack: lz4.pack, unpack: lz4.unpack },
  zstd: { id: 4, ...zstd }
}
const byId = new Map(Object.values(codecs).map((codec) => [codec.id, codec]))

/** The codec that a batch's attributes name; undefined if the batch is not packed. Throws an Error if Kafka has no such codec. */
export const codecOf = (attributes: number): Codec | undefined => {
  const id = attributes & 7
  if (id === 0) return undefined
  const codec = byId.get(id)
  if (codec === undefined) throw new Error(`unknown compression codec ${id} in a record batch`)
  return codec
}

/** Adds the codecs to kafkajs, which crashes on a batch that is packed with one that it lacks. */
export const register = (): void => {
  const all: Record<number, unknown> = KafkaJs.CompressionCodecs
  for (const { id, pack, unpack } of Object.values(codecs)) {
    all[id] = () => ({
      compress: (encoder: { readonly buffer: Buffer }) => Promise.resolve(pack(encoder.buffer)),
      decompress: (bytes: Buffer) => Promise.resolve(unpack(bytes))
    })
  }
}
