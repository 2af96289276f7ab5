// The log of a server whose aggregates have personal fields.
import { expect, onTestFinished, test, vi } from "vitest"
import { call, startServer } from "../../support/aggregate-http.ts"

test("the log says where code of an aggregate with personal fields threw, and not what: it may quote them", async () => {
  const server = await startServer()
  onTestFinished(() => server.stop())
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined)
  onTestFinished(() => log.mockRestore())
  const asked = [
    ["person/p1/commands/fail", {}],
    ["person/bad-evolve/commands/join", {}],
    ["person/bad-subject/commands/join", {}]
  ] as const
  for (const [path, body] of asked) expect((await call(server, path, body)).status, path).toBe(500)
  const text = log.mock.calls.flat().join("\n")
  expect(text).toContain('person "p1": command fail: `decide` failed: RangeError: its message is hidden')
  expect(text.match(/aggregate-http\.ts:\d+/g)).toHaveLength(3)
  expect(text).not.toContain("secret@example.com")
})
