// Text that looks like markup, scripts, links, terminal escapes or other texts, in every field of events, keys, headers, tenants, streams and errors: the
// console shows it as text on every page that has it.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import { chromium, eventually, look, openConsole, walk } from "../../support/browser/console.ts"
import application, { hostileTexts, notes } from "../../support/browser/hostile.ts"
import { recordOf } from "../../support/engine.ts"
import { keysOf, type ServedSystem, serveSystem } from "../../support/served-system.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const keys = keysOf({ mr_all: [undefined, "ingest", "read", "operate"] })
const texts = Object.values(hostileTexts)
const at = 1_767_225_600_000
/** An input of the page. */
interface Input {
  readonly value: string
}
let running: ServedSystem
let browser: Browser

const note = (id: string, subject: string, tenant: string, text: string, more: object = {}) => ({
  type: "noted",
  id,
  subject,
  tenant,
  text,
  size: 1,
  at,
  fails: false,
  ...more
})
const append = (values: ReadonlyArray<object>, headers: Readonly<Record<string, string>> = {}) =>
  run(
    running.system.log.append(
      notes.name,
      values.map((value) => ({ ...recordOf(notes, value, 2), headers }))
    )
  )
const command = async (id: string, body: object) => {
  const response = await fetch(`${running.url}/v1/aggregates/page/${encodeURIComponent(id)}/commands/write`, {
    method: "POST",
    headers: {
      authorization: "Bearer mr_all",
      "content-type": "application/json",
      "idempotency-key": id.slice(0, 20).replaceAll(/[^\w-]/g, "-")
    },
    body: JSON.stringify(body)
  })
  expect([201, 409], await response.text()).toContain(response.status)
}
const deep = (levels: number): object => (levels === 0 ? { mark: "deepest" } : { [`mark ${levels}`]: deep(levels - 1) })
const counted = (query: string, count: number) =>
  eventually(async () => Number((await running.system.database.sql.unsafe(query))[0]?.["count"]) === count)

suite("text of events", () => {
  beforeAll(async () => {
    running = await run(serveSystem(application, { keys }))
    // where keys, ids and tenants may be long, they are no longer than the gateway takes
    for (const [i, text] of texts.entries()) {
      const short = text.slice(0, 900)
      await append(
        [
          note(`${i} ${short}`, short, short, text, { detail: { [short]: text } }),
          note(`failed ${i} ${short}`, `${short} failed`, short, text, { fails: true })
        ],
        { [`mark-${i}`]: text, [short.replaceAll(/[^\w]/g, "-").slice(0, 40)]: text }
      )
      await command(short, { text, isFine: true })
    }
    await append([
      note("large", "large", "acme", `mark ${"x".repeat(1_000_000)}`),
      note("number", "number", "acme", "mark", {
        size: 1.7976931348623157e308,
        detail: JSON.parse('{"n": 9007199254740993, "e": 1e400}') as object
      }),
      note("deep", "deep", "acme", "mark", { detail: deep(200) })
    ])
    await counted("select count(*)::int from kept_notes", texts.length + 3)
    await counted("select count(*)::int from millrace.dead_letters", texts.length)
    browser = await run(chromium)
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test("is text on every page, whatever it looks like", { timeout: 120_000 }, async () => {
    const { close, errors, page } = await openConsole(browser, running.url, {
      key: "mr_all",
      viewport: { width: 1280, height: 800 }
    })
    const problems: Array<string> = []
    const shown: Array<string> = []
    const first = [
      "#/tables/kept_notes",
      "#/tables/pages",
      "#/events?topic=notes.v1",
      "#/events?topic=notes.v1&partition=1",
      "#/live?topic=notes.v1&from=earliest",
      "#/live?topic=echoes.v1&from=earliest",
      ...texts.flatMap((text) => [
        `#/aggregates/page/${encodeURIComponent(text.slice(0, 900))}`,
        `#/explain?${new URLSearchParams({ table: "kept_notes", subject: text.slice(0, 900), id: `${texts.indexOf(text)} ${text.slice(0, 900)}` })}`
      ])
    ]
    await page.evaluate("globalThis.taken = () => { globalThis.isTaken = true }")
    await walk(
      page,
      async (link) => {
        const what = link.slice(0, 80)
        problems.push(...errors.splice(0).map((one) => `${what}: ${one}`))
        problems.push(...(await look(page, "cutOff")).map((one) => `${what}: ${one}`))
        const made = await page.evaluate<ReadonlyArray<string>>(
          `[...document.querySelectorAll("main img, main script, main iframe, main [onerror], main [onload], a[href^='javascript:'], main svg[onload]")].map((one) => one.outerHTML.slice(0, 200))`
        )
        problems.push(...made.map((one) => `${what}: ${one}`))
        const text = await page.evaluate<string>("document.body.innerText + document.title")
        // what cannot be seen, or turns the text around it, is shown by its code
        // oxlint-disable-next-line no-control-regex
        const unseen = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u200b\ufeff]/u.exec(text)
        if (unseen !== null)
          problems.push(`${what}: U+${unseen[0].codePointAt(0)!.toString(16)} is in the text of the page`)
        const typed = await page
          .locator("main input")
          .evaluateAll((all) => all.map((one) => (one as unknown as Input).value).join("\n"))
        if (text.includes("mark") || typed.includes("mark")) shown.push(link.split(/[?/]/)[1]!)
        if (await page.evaluate<boolean>("globalThis.isTaken === true")) problems.push(`${what}: a script ran`)
      },
      first
    )
    expect(problems.join("\n")).toBe("")
    for (const name of ["tables", "events", "live", "explain", "aggregates", "dead-letters", "windows"])
      expect(shown, name).toContain(name)
    await close()
  })
})
