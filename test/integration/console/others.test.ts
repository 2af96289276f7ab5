// The console on applications of another kind: orders alone, rides with a lookup and a window, and one that has nothing yet. Every page opens, names the
// application's own things alone, and says the next step where it has nothing to show.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import { Application, type Projection } from "../../../src/index.ts"
import type { ServeOptions } from "../../../src/server/server.ts"
import { chromium, look, openConsole, walk } from "../../support/browser/console.ts"
import { serveSystem } from "../../support/served-system.ts"
import { needing } from "../../support/stack.ts"
import ordersApplication from "../../../examples/orders/millrace.config.ts"
import ridesApplication from "../../../templates/app/millrace.config.ts"

const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let browser: Browser

const nothing: ReadonlyArray<Projection.Any> = []
/** The applications, with words of other applications that their pages must not have. */
const applications: Readonly<Record<string, readonly [unknown, RegExp]>> = {
  "orders alone": [ordersApplication, /alert|flight|signals|entity_id|ride/i],
  "rides, with a lookup and a window": [ridesApplication, /alert|flight|signals|entity_id|order-/i],
  "an application that declares nothing": [
    Application.make({ name: "empty", projections: nothing as never }),
    /alert|flight|signals|ride|entity_id/i
  ]
}

suite("the console of another application", () => {
  beforeAll(async () => {
    browser = await run(chromium)
  }, 60_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  for (const [name, [application, foreign]] of Object.entries(applications))
    test(`${name}: each page is sensible before anything has happened`, { timeout: 90_000 }, async () => {
      const { url } = await run(serveSystem(application as ServeOptions["application"]))
      const { close, errors, page } = await openConsole(browser, url, { viewport: { width: 1280, height: 800 } })
      const problems: Array<string> = []
      await walk(page, async (link) => {
        const note = (what: string, found: ReadonlyArray<string>) =>
          problems.push(...found.map((one) => `${link}, ${what}: ${one}`))
        note("errors", errors.splice(0))
        note("look", [...(await look(page, "cutOff")), ...(await look(page, "missing"))])
        note("problems", await page.locator(".problem").allInnerTexts())
        const text = await page.locator("main").innerText()
        const word = foreign.exec(text)
        if (word !== null)
          note("names another's", [text.slice(Math.max(0, word.index - 40), word.index + 40).replaceAll("\n", " | ")])
        if (/undefined|NaN|\[object|null null/.test(text))
          note("odd text", [/.{0,40}(?:undefined|NaN|\[object|null null).{0,40}/.exec(text)![0]])
        // where there is nothing, the next step is said: what to do, or a command
        for (const empty of await page.locator(".empty").all())
          if ((await empty.locator("p, a, .command, button").count()) < 2)
            note("no next step", [await empty.innerText()])
      })
      expect(problems.join("\n")).toBe("")
      await close()
    })
})
