// Reads the lines of an input: a file, a FIFO or standard input, also gzipped, with a limit for a line.
import { constants, createReadStream, openSync, fstatSync, statSync } from "node:fs"
import { isUtf8 } from "node:buffer"
import { Socket } from "node:net"
import type { Readable } from "node:stream"
import { createGunzip } from "node:zlib"
import { CommandFailed } from "./command-failure.ts"

/** A line of an input. */
export interface InputLine {
  /** From 1. */
  readonly number: number
  /** Undefined if the line is not UTF-8. */
  readonly text: string | undefined
}
/** The longest line, in bytes: that of the largest body that a gateway accepts by default. */
export const maxLineBytes = 16 * 1024 * 1024
/** After this long without a first byte, `onWaiting` is called. */
const patienceMs = 2_000

// Opening a FIFO waits for its writer in a thread of the runtime, and Node cannot end before that thread. Without waiting, the event loop waits
// instead; Deno has no sockets of open files.
const open = (file: string): Readable => {
  if (file === "-") return process.stdin
  if ("Deno" in globalThis) return createReadStream(file)
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
  return fstatSync(fd).isFIFO() ? new Socket({ fd, readable: true, writable: false }) : createReadStream(file, { fd })
}

/** How much of an input was read. */
export interface InputSize {
  /** Bytes of the file so far, compressed if it is. */
  read: number
  /** Bytes of the whole file; undefined for what is no regular file. */
  readonly total: number | undefined
}
/** The size of an input, of which nothing was read. */
export const sizeOf = (file: string): InputSize => {
  const found = file === "-" ? undefined : statSync(file, { throwIfNoEntry: false })
  return { read: 0, total: found?.isFile() === true && found.size > 0 ? found.size : undefined }
}

/**
 * The lines of a file that are not blank; `-` is standard input, and a name that ends with `.gz` is decompressed. Calls `onWaiting` if nothing
 * arrives for two seconds, and counts in `size` what was read. Fails if a line is longer than `maxLineBytes`, so that an endless one ends, and with the error of the input.
 */
export async function* linesOf(file: string, onWaiting: () => void, size?: InputSize): AsyncGenerator<InputLine> {
  const input = open(file)
  const waiting = setTimeout(onWaiting, patienceMs)
  try {
    const bytes = file.endsWith(".gz") ? input.pipe(createGunzip()) : input
    // a pipe does not forward an error of its source
    if (bytes !== input) input.once("error", (error: Error) => bytes.destroy(error))
    input.once("data", () => clearTimeout(waiting))
    if (size !== undefined) input.on("data", (chunk: Buffer) => (size.read += chunk.length))
    let number = 0
    let parts: Array<Buffer> = []
    let pending = 0
    const line = (): InputLine | undefined => {
      const whole = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
      parts = []
      pending = 0
      number++
      if (!isUtf8(whole)) return { number, text: undefined }
      const text = whole.toString("utf8").trim()
      return text === "" ? undefined : { number, text }
    }
    for await (const chunk of bytes as AsyncIterable<Buffer>) {
      let from = 0
      for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
        parts.push(chunk.subarray(from, end))
        from = end + 1
        const found = line()
        if (found !== undefined) yield found
      }
      if (from === chunk.length) continue
      parts.push(from === 0 ? chunk : chunk.subarray(from))
      pending += chunk.length - from
      if (pending > maxLineBytes) throw endless(file, number + 1)
    }
    if (pending > 0) {
      const found = line()
      if (found !== undefined) yield found
    }
  } finally {
    clearTimeout(waiting)
    input.destroy()
  }
}

const endless = (file: string, number: number): CommandFailed =>
  new CommandFailed({
    message: `line ${number} of ${file} has more than ${maxLineBytes} bytes`,
    try: "send NDJSON: one event on each line"
  })
