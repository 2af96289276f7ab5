// What handlers leave behind is logged with its event and does not end the process; what other code leaves behind does, as without us.
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"

const child = (...args: ReadonlyArray<string>) => {
  const script = fileURLToPath(new URL("../../support/stray-child.ts", import.meta.url))
  return spawnSync(process.execPath, [script, ...args], { encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } })
}

test("a rejected promise or a throwing timer of a handler is logged with its event, and the process goes on", () => {
  const { status, stderr, stdout } = child()
  const rejected = (position: number, error: string) =>
    `projection p_v1, event puts/0 position ${position}: a promise that nothing waits for was rejected: ${error}; what the code did before counts. ` +
    "Wait for its work in the Effect that the handler returns"
  expect(stdout + stderr).toContain(rejected(0, "Error: nobody waits"))
  expect(stdout + stderr).toContain(rejected(1, "Error: it has no text"))
  expect(stdout + stderr).toContain("event puts/0 position 2: a timer or a callback threw: Error: in a timer")
  expect(stdout + stderr).toContain(rejected(3, "Error: nobody waits"))
  expect(stdout + stderr).toContain(rejected(4, "Error: nobody waits"))
  expect(stdout).toContain("alive")
  expect(status).toBe(0)
})
test("a rejected promise or a throwing timer of other code ends the process with its error", () => {
  for (const [what, message] of [
    ["foreign", "Error: nobody waits"],
    ["foreign-timer", "Error: nobody catches"]
  ] as const) {
    const { status, stderr, stdout } = child(what)
    expect(stderr).toContain(message)
    expect(stdout).not.toContain("alive")
    expect(status).toBe(1)
  }
})
