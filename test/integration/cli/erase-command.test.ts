// `millrace erase` and `millrace export` beside a running `dev` and on a stopped system, and what a wrong key of keys does.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { run, start } from "../../support/cli.ts"

const data = mkdtempSync(join(tmpdir(), "millrace-erase-"))
const place = ["--config", "test/support/customers.config.ts", "--data", data]
const scope = Effect.runSync(Scope.make())
const keyed = { MILLRACE_KEY_ENCRYPTION_KEY: "ab".repeat(32) }

const startDev = async () => {
  const running = start(keyed, "dev", ...place, "--port", "0")
  const dev = await Effect.runPromise(Scope.provide(running, scope))
  const said = await Effect.runPromise(dev.said(/POST http:\S+?:\d+/))
  return { ...dev, url: said.slice("POST ".length) }
}
let dev: Awaited<ReturnType<typeof startDev>>
beforeAll(async () => {
  dev = await startDev()
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(data, { recursive: true, force: true })
})
const millrace = (...args: ReadonlyArray<string>) => Effect.runPromise(run(keyed, ...args, ...place))
const request = async (path: string, body?: object) => {
  const init =
    body === undefined
      ? {}
      : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } }
  const response = await fetch(`${dev.url}/v1/aggregates/${path}`, init)
  return { status: response.status, body: (await response.json()) as never }
}
/** An id with what paths, arrays, JSON and notifications could stumble over. */
const ada = `ada "l'ov" {,} \\ é 😀%`
const register = (id: string) =>
  request(`customer/${encodeURIComponent(id)}/commands/register`, { email: `private-${id.slice(0, 3)}@example.org` })
const state = async (id: string) => (await request(`customer/${encodeURIComponent(id)}`)).body
const exported = async (subject: string) => {
  const { code, errors, output } = await millrace("export", subject)
  expect([code, errors]).toEqual([0, ""])
  return output
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as { readonly aggregate: string; readonly event: Readonly<Record<string, string>> })
}
const rowsOf = async (table: string) => {
  const { errors, output } = await Effect.runPromise(
    run({}, "sql", "--data", data, `select * from ${table} order by 1`)
  )
  expect(errors).toBe("")
  return output
}
/** Waits until a query's output has a text. */
const until = async (text: string, read: () => Promise<string>) => {
  let found = await read()
  for (let tries = 0; tries < 50 && !found.includes(text); tries++) found = await read()
  return found
}

test("beside a running dev, erased data is gone at once from states, exports and texts in the database", async () => {
  for (const id of [ada, "bob"]) expect((await register(id)).status).toBe(201)
  const noted = await request("ticket/t1/commands/note", { customer_id: ada, note: "secret-word" })
  expect(noted.status).toBe(201)
  expect(await state(ada)).toMatchObject({ state: { email: "private-ada@example.org" } })
  // an inline projection gets plain values, as an async one does
  expect(await rowsOf("inline_emails")).toContain("private-ada@example.org")
  expect(await until("private-ada", () => rowsOf("async_emails"))).toContain("private-ada@example.org")
  const letters = await until("its message is hidden", () => rowsOf("millrace.dead_letters"))
  expect(letters).toContain("its message is hidden")
  expect(letters).not.toContain("secret-word")
  const before = await exported(ada)
  expect(before.map(({ aggregate }) => aggregate)).toEqual(["customer", "ticket"])
  expect(before[1]!.event["note"]).toBe("secret-word")

  const dry = await millrace("erase", ada, "--dry-run")
  expect([dry.code, dry.errors]).toEqual([0, ""])
  expect(dry.output).toContain("would erase the personal data of ada")
  const asked = await millrace("erase", ada, "--dry-run", "--json")
  expect((await millrace("erase", ada, "--dry-run", "--readmit")).code).toBe(2)
  expect(await state(ada)).toMatchObject({ state: { email: "private-ada@example.org" } })

  const erased = await millrace("erase", ada, "--json")
  expect([erased.code, erased.errors]).toEqual([0, ""])
  expect(JSON.parse(erased.output)).toMatchObject({
    subject: ada,
    keys: 1,
    aggregates: [
      { aggregate: "customer", streams: 1 },
      { aggregate: "ticket", streams: 1 }
    ],
    unaware: ["inline_emails", "async_emails", "notes"]
  })
  // what the dry run has said
  expect({ ...JSON.parse(asked.output), dry_run: undefined }).toEqual(JSON.parse(erased.output))
  // the process that runs has dropped its key and its state
  expect(await state(ada)).toMatchObject({ state: { email: "gone" } })
  expect((await register(ada)).status).toBe(410)
  expect(await state("bob")).toMatchObject({ state: { email: "private-bob@example.org" } })
  // nothing has rows about a person of whom there are no events
  const unknown = await millrace("erase", "nobody", "--json")
  expect(JSON.parse(unknown.output)).toMatchObject({ subject: "nobody", keys: 0, aggregates: [], unaware: [] })
  const after = await exported(ada)
  expect(after.map(({ event }) => event["email"] ?? event["note"])).toEqual(["gone", "[erased]"])
}, 120_000)

test("on a stopped system subjects are erased, and rebuilt projections have redacted rows", async () => {
  dev.process.kill("SIGTERM")
  await Effect.runPromise(dev.ended)
  const bob = await millrace("erase", "bob")
  expect([bob.code, bob.errors]).toEqual([0, ""])
  expect(bob.output).toContain("erased the personal data of bob")
  expect(bob.output).toContain("next: millrace rebuild async_emails, then millrace promote async_emails")
  // bob has no tickets
  expect(bob.output).not.toContain("notes")
  expect((await millrace("erase", "bob")).output).toContain("has no personal data that is not erased")
  expect((await millrace("erase", "")).code).not.toBe(0)
  for (const name of ["inline_emails", "async_emails"]) {
    const rebuilt = await millrace("rebuild", name)
    expect([name, rebuilt.code, rebuilt.errors]).toEqual([name, 0, expect.any(String)])
    const promoted = await millrace("promote", name)
    expect([name, promoted.code, promoted.errors]).toEqual([name, 0, expect.any(String)])
    const rows = await rowsOf(name)
    expect(rows).not.toContain("private-")
    expect(rows.split("gone").length - 1).toBe(2)
  }
}, 90_000)

test("an export leaves out what the application cannot read, names it, and fails", async () => {
  for (const id of ["t7", "t8"]) {
    const sent = await millrace("aggregate", "send", "ticket", id, "note", "customer_id=eva", "note=private-note")
    expect([sent.code, sent.errors]).toEqual([0, ""])
  }
  const { code, errors, output } = await Effect.runPromise(
    run({ ...keyed, BROKEN_TICKET: "t7" }, "export", "eva", ...place)
  )
  expect(code).toBe(1)
  const lines = output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines).toMatchObject([
    { aggregate: "ticket", stream: "t8", event: { note: "private-note" } },
    { partial: true, left_out: [{ aggregate: "ticket", stream: "t7", events: 1 }] }
  ])
  expect(errors).toContain("millrace: the export is partial; events were left out of 1 stream:")
  expect(errors).toMatch(
    / {2}ticket "t7": 1 event: event 1 of type ticket\.noted has no subject: `subject` threw Error/
  )
  expect(errors).toContain("try: correct the declarations, and run the command again")
  expect(errors + output).not.toContain("the ticket has no customer")
  expect((await exported("eva")).map(({ aggregate }) => aggregate)).toEqual(["ticket", "ticket"])
}, 60_000)

test("a system does not start with a wrong, missing or malformed key of keys, and says what to set", async () => {
  const sent = await millrace("aggregate", "send", "customer", "eve", "register", "email=private-eve@example.org")
  expect([sent.code, sent.errors]).toEqual([0, ""])
  const failing = async (key: string | undefined) => {
    const ended = await Effect.runPromise(
      run({ MILLRACE_KEY_ENCRYPTION_KEY: key }, "start", ...place, "--roles", "api", "--port", "0")
    )
    expect(ended.code).not.toBe(0)
    return ended.errors + ended.output
  }
  expect(await failing("cd".repeat(32))).toContain("encrypted with another MILLRACE_KEY_ENCRYPTION_KEY; set the one")
  expect(await failing(undefined)).toContain("are encrypted; set MILLRACE_KEY_ENCRYPTION_KEY to the key")
  expect(await failing("short")).toContain("it must be 32 bytes, as 64 hex digits or as base64")
  // whoever has lost the key can erase all the same
  const lost = await Effect.runPromise(run({}, "erase", "eve", ...place))
  expect([lost.code, lost.errors]).toEqual([0, ""])
}, 60_000)
