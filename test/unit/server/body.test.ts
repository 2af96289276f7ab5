// The memory for bodies: what a request takes is given back once, whatever happens in between.
import { Readable } from "node:stream"
import { gzipSync } from "node:zlib"
import { describe, expect, test } from "vitest"
import { BodyMemory, textOf } from "../../../src/server/http/body.ts"
import { defaultLimits } from "../../../src/server/http/limits.ts"
import type { Problem } from "../../../src/server/http/problem.ts"

const limits = { ...defaultLimits, bodyBytes: 1_000_000 }
const refusal = async (text: Promise<string>): Promise<number> => {
  const problem = await text.then(
    () => undefined,
    (error: unknown) => error as Problem
  )
  return problem?.status ?? 200
}

describe("memory for bodies", () => {
  test("a request that has ended takes nothing more", () => {
    const memory = new BodyMemory(1_000, 100)
    const share = memory.share()
    expect(share.grow(400)).toBeUndefined()
    expect(memory.bytes).toBe(400)
    share.release()
    expect(share.grow(100)?.status).toBe(400)
    share.release()
    expect(memory.bytes).toBe(0)
  })
  test("a body whose client disconnects while it is decompressed leaves nothing behind", async () => {
    const memory = new BodyMemory(10_000_000, 100)
    const share = memory.share()
    const packed = gzipSync(Buffer.alloc(900_000, 97))
    const text = textOf(Readable.from([packed]), { "content-encoding": "gzip" }, share, limits)
    while (memory.bytes <= packed.length) await new Promise((next) => setImmediate(next))
    share.release()
    // Deno decompresses everything at once, so that nothing is left to be refused
    expect(await refusal(text)).toBe("Deno" in globalThis ? 200 : 400)
    expect(memory.bytes).toBe(0)
  })
  test("a body whose client has disconnected before it is read is refused at once", async () => {
    const body = new Readable({ read: () => {} })
    body.destroy()
    await new Promise((next) => setImmediate(next))
    expect(await refusal(textOf(body, {}, new BodyMemory(1_000, 100).share(), limits))).toBe(400)
  })
  test("only uploads that take long are refused for others, the oldest first, and no more than needed", async () => {
    const memory = new BodyMemory(1_000, 50)
    const refused: Array<string> = []
    const upload = (name: string) => {
      const share = memory.share()
      share.grow(400)
      share.receiving(() => refused.push(name))
      return share
    }
    upload("old")
    upload("older than the limit too")
    await new Promise((done) => setTimeout(done, 60))
    const young = upload("young")
    expect([refused, memory.bytes]).toEqual([["old"], 800])
    expect(young.grow(500)).toBeUndefined()
    expect([refused, memory.bytes]).toEqual([["old", "older than the limit too"], 900])
    expect(memory.share().grow(500)?.status).toBe(429)
    expect(refused).toHaveLength(2)
  })
})
