// Inputs that never end, are not text or are a FIFO, and gateways that are away or full: sending ends, and says where it is.
import { execFileSync } from "node:child_process"
import { createServer } from "node:http"
import { mkdtempSync, openSync, rmSync, writeFileSync, writeSync, closeSync, constants } from "node:fs"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { gzipSync } from "node:zlib"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest"
import type { CommandFailed } from "../../../src/cli/command-failure.ts"
import { feed, type FeedOptions } from "../../../src/cli/feed.ts"
import * as Cli from "../../support/cli.ts"
import { many, recordsOf, start, transfer, type Server } from "../../support/http.ts"

/** Deno has no sockets of open files, and its processes end by a signal without a code. */
const isDeno = "Deno" in globalThis
const directory = mkdtempSync(join(tmpdir(), "millrace-ingest-"))
let server: Server
beforeAll(async () => {
  server = await start()
})
afterAll(async () => {
  await server.stop()
  rmSync(directory, { recursive: true })
})

const fileOf = (name: string, content: string | Uint8Array): string => {
  const file = join(directory, name)
  writeFileSync(file, content)
  return file
}
const send = (file: string, options: Partial<FeedOptions> = {}) =>
  Effect.runPromise(feed(file, { url: server.url, topic: undefined, speed: "max", ...options }))
const failure = (file: string, options: Partial<FeedOptions> = {}): Promise<CommandFailed> =>
  send(file, options).then(
    () => expect.unreachable("it was sent"),
    (error: unknown) => error as CommandFailed
  )
/** What is printed to standard error until the test has finished. */
const printed = () => {
  const lines: Array<string> = []
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    lines.push(String(text))
    return true
  })
  onTestFinished(() => spy.mockRestore())
  return lines
}
/** A server that gives every request this answer. */
const answering = async (status: number, body: string): Promise<string> => {
  const other = createServer((request, response) => {
    request.resume().once("end", () => response.writeHead(status).end(body))
  })
  await new Promise<void>((done) => other.listen(0, "127.0.0.1", done))
  onTestFinished(() => void other.close())
  return `http://127.0.0.1:${(other.address() as AddressInfo).port}`
}
const text = (count: number) =>
  many(count)
    .map((event) => JSON.stringify(event))
    .join("\n")

describe("inputs", () => {
  test("a line without an end ends the sending at the limit of a line", async () => {
    const { message, try: advice } = await failure("/dev/zero")
    expect(message).toBe("line 1 of /dev/zero has more than 16777216 bytes")
    expect(advice).toBe("send NDJSON: one event on each line")
  })
  test("a gzip bomb of one line ends at the limit", async () => {
    const { message } = await failure(fileOf("bomb.gz", gzipSync(Buffer.alloc(40_000_000, 97))))
    expect(message).toContain("has more than 16777216 bytes")
  })
  test("lines that are not UTF-8 are rejected with their numbers; the others are in the log as they are", async () => {
    const [first, last] = [transfer({ entity_id: "Å" }), transfer({ entity_id: "Ω" })]
    const before = (await recordsOf(server.log, "events.raw.v1")).length
    const file = fileOf(
      "latin1.ndjson",
      Buffer.concat([
        Buffer.from(`\u{feff}${JSON.stringify(first)}\r\n\r\n`),
        Buffer.from(JSON.stringify(transfer({ entity_id: "Å" })), "latin1"),
        Buffer.from(`\nno JSON\n${JSON.stringify(last)}`)
      ])
    )
    const { accepted, examples, rejected } = await send(file)
    expect([accepted, rejected]).toEqual([2, 2])
    const errors = examples.map((example) => (JSON.parse(example) as { error: { line: number; code: string } }).error)
    expect(errors.map(({ code, line }) => [line, code])).toEqual([
      [3, "invalid_utf8"],
      [4, "malformed_json"]
    ])
    expect((await recordsOf(server.log, "events.raw.v1")).length).toBe(before + 2)
  })
  test.skipIf(isDeno)("a FIFO is waited for, which is said, and read until its writer closes it", async () => {
    const file = join(directory, "fifo")
    execFileSync("mkfifo", [file])
    const lines = printed()
    const sent = send(file)
    await vi.waitFor(() => expect(lines.join("")).toBe(`millrace: waiting for data from ${file}\n`), 5_000)
    const writer = openSync(file, constants.O_WRONLY)
    writeSync(writer, `${text(3)}\n`)
    await setTimeout(50)
    writeSync(writer, text(2))
    closeSync(writer)
    expect(await sent).toMatchObject({ accepted: 5, rejected: 0 })
  })
  test.skipIf(isDeno)("a FIFO without a writer does not keep the process from ending", async () => {
    const file = join(directory, "silent")
    execFileSync("mkfifo", [file])
    const module = join(import.meta.dirname, "../../../src/cli/input-lines.ts")
    const script = `import { linesOf } from ${JSON.stringify(module)}; void linesOf(${JSON.stringify(file)}, () => {}).next(); setTimeout(() => process.exit(7), 100)`
    const run = () =>
      execFileSync(process.execPath, ["--input-type=module", "-e", script], { timeout: 8_000, stdio: "pipe" })
    expect(run).toThrow(expect.objectContaining({ status: 7 }))
  })
  test.each([
    ["a directory", () => directory, "EISDIR"],
    ["a file that does not exist", () => join(directory, "missing"), "ENOENT"],
    ["a file that is no gzip", () => fileOf("text.gz", "hello\n"), "incorrect header check"],
    [
      "a gzip file that is cut off",
      () => fileOf("cut.gz", gzipSync(text(50)).subarray(0, 200)),
      "unexpected end of file"
    ]
  ])("%s is refused with its name and the cause", async (_, file, cause) => {
    const name = file()
    const { message } = await failure(name)
    expect(message.startsWith(`cannot read ${name}: `)).toBe(true)
    expect(message).toContain(cause)
  })
})

describe("gateways", () => {
  const file = () => fileOf("events.ndjson", text(3))
  test("one that is full ends the sending with a clear error, after it was waited for", async () => {
    const url = await answering(503, '{"error":{"code":"overloaded"}}')
    const lines = printed()
    const { message, try: advice } = await failure(file(), { url, patienceMs: 3_000 })
    expect(message).toBe(
      `the gateway at ${url} accepted nothing for 3 s: it answers 503; the log has 0 events of it, up to line 0`
    )
    expect(advice).toContain("millrace start --roles gateway")
    expect(lines.join("")).toBe(`millrace: waiting for the gateway at ${url}: it answers 503\n`)
  })
  test("one that is away: the error has the cause, not advice about the file", async () => {
    const { message, try: advice } = await failure(file(), { url: "http://127.0.0.1:9", patienceMs: 500 })
    expect(message).toMatch(/^the gateway at http:\/\/127\.0\.0\.1:9 accepted nothing for 0\.5 s: \S.*; the log has 0/)
    expect(advice).not.toContain("name of the file")
  })
  test("one that refuses is not asked again; the error has the answer, and how far the file is sent", async () => {
    const url = await answering(404, "no such route")
    const { message } = await failure(file(), { url })
    expect(message).toBe(`the gateway at ${url} answered 404: no such route; the log has 0 events of it, up to line 0`)
  })
  test.each(["127.0.0.1:7070", "ftp://127.0.0.1", "http://user:secret@127.0.0.1:1", "http://a:b", ""])(
    "the URL %j, to which nothing can be sent, is refused at once and not printed",
    async (url) => {
      const { message, try: advice } = await failure(file(), { url })
      expect(message).toMatch(/^the URL of the gateway (is not an http|has a user)/)
      expect(message).not.toContain("secret")
      expect(advice).toBe("MILLRACE_URL=http://127.0.0.1:7070")
    }
  )
  test("one that is back within the time gets everything", async () => {
    let busy = 2
    const front = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request
        .on("data", (chunk: Buffer) => chunks.push(chunk))
        .once("end", () => {
          if (busy-- > 0) return void response.writeHead(429).end()
          void fetch(server.url + request.url!, {
            method: "POST",
            headers: { "content-type": "application/x-ndjson" },
            body: Buffer.concat(chunks)
          }).then(async (answer) => response.writeHead(answer.status).end(await answer.text()))
        })
    })
    await new Promise<void>((done) => front.listen(0, "127.0.0.1", done))
    onTestFinished(() => void front.close())
    const url = `http://127.0.0.1:${(front.address() as AddressInfo).port}`
    expect(await send(file(), { url })).toMatchObject({ accepted: 3, rejected: 0 })
  })
})

test.skipIf(isDeno)(
  "a signal ends ingest with its code, and standard error says how many events the log has",
  async () => {
    const requests: Array<unknown> = []
    const slow = createServer((request, response) => {
      const isFirst = requests.push(request) === 1
      // the second request gets no answer
      request.resume().once("end", () => void (isFirst && response.writeHead(202).end(JSON.stringify(first))))
    })
    const first = { accepted: 3_999, rejected: 1, results: [] }
    await new Promise<void>((done) => slow.listen(0, "127.0.0.1", done))
    onTestFinished(() => void slow.closeAllConnections())
    onTestFinished(() => void slow.close())
    const url = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`
    const file = fileOf("cut.ndjson", text(8_000))
    const cut = Effect.fnUntraced(function* (signal: NodeJS.Signals) {
      requests.length = 0
      const running = yield* Cli.start({ MILLRACE_URL: url }, "ingest", file)
      while (requests.length < 2) yield* Effect.sleep(20)
      running.process.kill(signal)
      return { code: yield* running.ended, errors: running.errors(), output: running.output() }
    }, Effect.scoped)
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGTERM", 143]
    ] as const) {
      const ended = await Effect.runPromise(cut(signal))
      expect(ended).toEqual({
        code,
        output: "",
        errors:
          `millrace: interrupted: the log has 3999 events of ${file}, perhaps also those of the request that was under way; 1 was rejected\n` +
          "try: send the file again: events that are in the log already are not counted twice where a projection deduplicates\n"
      })
    }
  },
  60_000
)
