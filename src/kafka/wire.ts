// Kafka's flexible encoding, which kafkajs does not speak: compact texts and arrays, and tagged fields. It knows no request.

/** Parts of a request, in order; `bytes` joins them. */
export class Writer {
  private readonly parts: Array<Buffer> = []

  bytes(): Buffer {
    return Buffer.concat(this.parts)
  }
  raw(bytes: Buffer): this {
    this.parts.push(bytes)
    return this
  }
  i8(value: number): this {
    return this.raw(Buffer.of(value & 255))
  }
  i16(value: number): this {
    const bytes = Buffer.alloc(2)
    bytes.writeInt16BE(value)
    return this.raw(bytes)
  }
  i32(value: number): this {
    const bytes = Buffer.alloc(4)
    bytes.writeInt32BE(value)
    return this.raw(bytes)
  }
  i64(value: number): this {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64BE(BigInt(value))
    return this.raw(bytes)
  }
  unsigned(value: number): this {
    const bytes: Array<number> = []
    let left = value
    for (; left > 127; left >>>= 7) bytes.push((left & 127) | 128)
    bytes.push(left)
    return this.raw(Buffer.from(bytes))
  }
  text(value: string): this {
    const bytes = Buffer.from(value)
    return this.unsigned(bytes.length + 1).raw(bytes)
  }
  array<A>(values: ReadonlyArray<A>, write: (value: A) => unknown): this {
    this.unsigned(values.length + 1)
    for (const value of values) write(value)
    return this
  }
  /** No tagged fields. */
  tags(): this {
    return this.i8(0)
  }
}

/** Reads an answer from its first byte on. */
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
    let byte: number
    let shift = 0
    do {
      byte = this.raw[this.at++]!
      value |= (byte & 127) << shift
      shift += 7
    } while (byte > 127)
    return value >>> 0
  }
  /** Without a copy; empty where it is null. */
  bytes(size = this.unsigned() - 1): Buffer {
    const from = this.at
    this.at += Math.max(0, size)
    return this.raw.subarray(from, this.at)
  }
  /** Empty where it is null. */
  text(): string {
    return this.bytes().toString("utf8")
  }
  /** Empty where it is null. */
  array<A>(read: () => A): Array<A> {
    const values: Array<A> = []
    for (let left = this.unsigned() - 1; left > 0; left--) values.push(read())
    return values
  }
  /** Passes over tagged fields. */
  tags(): void {
    for (let left = this.unsigned(); left > 0; left--) {
      this.unsigned()
      this.bytes(this.unsigned())
    }
  }
}
