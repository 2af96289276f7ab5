// Kafka's encoding of requests and answers: numbers, texts, arrays, and the compact forms and tagged fields of flexible versions. For requests
// that kafkajs does not have, or encodes by copying.

/** Writes a request. `size` is the expected number of bytes; it grows if there are more. */
export class Writer {
  private buffer: Buffer
  private at = 0

  constructor(size = 256) {
    this.buffer = Buffer.allocUnsafe(size)
  }
  bytes(): Buffer {
    return this.buffer.subarray(0, this.at)
  }
  private room(size: number): number {
    const { at } = this
    if (at + size > this.buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(at + size, this.buffer.length * 2))
      this.buffer.copy(grown, 0, 0, at)
      this.buffer = grown
    }
    this.at = at + size
    return at
  }
  /** Copies bytes. */
  raw(bytes: Buffer): this {
    const at = this.room(bytes.length)
    bytes.copy(this.buffer, at)
    return this
  }
  i8(value: number): this {
    const at = this.room(1)
    this.buffer.writeInt8(value, at)
    return this
  }
  i16(value: number): this {
    const at = this.room(2)
    this.buffer.writeInt16BE(value, at)
    return this
  }
  i32(value: number): this {
    const at = this.room(4)
    this.buffer.writeInt32BE(value, at)
    return this
  }
  i64(value: bigint | number): this {
    const at = this.room(8)
    this.buffer.writeBigInt64BE(BigInt(value), at)
    return this
  }
  unsigned(value: number): this {
    for (let left = value; ; left >>>= 7) {
      const at = this.room(1)
      this.buffer[at] = left > 127 ? (left & 127) | 128 : left
      if (left <= 127) return this
    }
  }
  text(value: string | null): this {
    if (value === null) return this.i16(-1)
    const bytes = Buffer.from(value)
    return this.i16(bytes.length).raw(bytes)
  }
  compactText(value: string): this {
    const bytes = Buffer.from(value)
    return this.unsigned(bytes.length + 1).raw(bytes)
  }
  array<A>(values: ReadonlyArray<A>, write: (value: A) => unknown): this {
    this.i32(values.length)
    for (const value of values) write(value)
    return this
  }
  compactArray<A>(values: ReadonlyArray<A>, write: (value: A) => unknown): this {
    this.unsigned(values.length + 1)
    for (const value of values) write(value)
    return this
  }
  /** Writes an empty list of tagged fields. */
  tags(): this {
    return this.i8(0)
  }
}

/** Reads an answer from its first byte on. Null texts, bytes and arrays are read as empty ones. */
export class Reader {
  private readonly raw: Buffer
  private at = 0

  constructor(raw: Buffer) {
    this.raw = raw
  }
  skip(bytes: number): void {
    this.at += bytes
  }
  i16(): number {
    this.at += 2
    return this.raw.readInt16BE(this.at - 2)
  }
  i32(): number {
    this.at += 4
    return this.raw.readInt32BE(this.at - 4)
  }
  i64(): bigint {
    this.at += 8
    return this.raw.readBigInt64BE(this.at - 8)
  }
  unsigned(): number {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = this.raw.readUInt8(this.at++)
      value |= (byte & 127) << shift
      if (byte < 128) return value >>> 0
    }
  }
  /** The next `size` bytes, not copied. */
  bytes(size: number): Buffer {
    const from = this.at
    this.at += Math.max(0, size)
    return this.raw.subarray(from, this.at)
  }
  compactBytes(): Buffer {
    return this.bytes(this.unsigned() - 1)
  }
  text(): string {
    return this.bytes(this.i16()).toString("utf8")
  }
  compactText(): string {
    return this.compactBytes().toString("utf8")
  }
  array<A>(read: () => A): Array<A> {
    const values: Array<A> = []
    for (let left = this.i32(); left > 0; left--) values.push(read())
    return values
  }
  compactArray<A>(read: () => A): Array<A> {
    const values: Array<A> = []
    for (let left = this.unsigned() - 1; left > 0; left--) values.push(read())
    return values
  }
  /** Skips tagged fields. */
  tags(): void {
    for (let left = this.unsigned(); left > 0; left--) {
      this.unsigned()
      this.skip(this.unsigned())
    }
  }
}
