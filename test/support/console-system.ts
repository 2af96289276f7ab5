// A running system with its console, in this process, and a Chromium that opens it, for tests of pages.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { expect } from "vitest"
import { launchChromium } from "../../site/chromium.ts"
import type { ServeOptions } from "../../src/server/server.ts"
import type { System } from "../../src/system/system.ts"
import { type Keys, serveSystem } from "./served-system.ts"

/** A page of the console. What it reports as an error is collected. */
export interface OpenPage {
  readonly page: Page
  readonly errors: Array<string>
  /** Shows a page by its address, `entity/N1?at=…`. */
  readonly show: (path: string) => Promise<void>
  readonly close: () => Promise<void>
}
export interface ConsoleSystem {
  readonly url: string
  readonly system: System
  /** Sends events, and fails if one is refused. Resolves to their token. */
  readonly send: (events: ReadonlyArray<object>, topic?: string) => Promise<string>
  /** Waits until the rows of a view have what follows from a token. */
  readonly processed: (view: string, token: string) => Promise<void>
  /** Opens the console, with the key if credentials are needed. */
  readonly open: (key?: string, options?: BrowserContextOptions) => Promise<OpenPage>
  readonly stop: () => Promise<void>
}

/** Starts an application. With `keys` each request needs one of them; that of `send` is the first one. */
export const consoleSystem = async (application: ServeOptions["application"], keys?: Keys): Promise<ConsoleSystem> => {
  const scope = Scope.makeUnsafe()
  const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
  const { system, url } = await run(serveSystem(application, { keys, limits: { waitMs: 20_000 } }))
  const browser: Browser = await launchChromium()
  const authorization = keys === undefined ? {} : { authorization: `Bearer ${Object.keys(keys)[0]!}` }
  const send = async (events: ReadonlyArray<object>, topic?: string) => {
    const response = await fetch(`${url}/v1/events${topic === undefined ? "" : `?topic=${topic}`}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...authorization },
      body: JSON.stringify(events)
    })
    expect(response.status, await response.clone().text()).toBe(202)
    return ((await response.json()) as { readonly token: string }).token
  }
  const processed = async (view: string, token: string) => {
    const response = await fetch(`${url}/v1/views/${view}?limit=1&waitFor=${token}`, { headers: authorization })
    expect(response.status, await response.text()).toBe(200)
  }
  const open = async (key?: string, options: BrowserContextOptions = {}): Promise<OpenPage> => {
    // a machine without a language gives the browser one that it does not know
    const context = await browser.newContext({ locale: "en-US", timezoneId: "UTC", ...options })
    const page = await context.newPage()
    page.setDefaultTimeout(20_000)
    const errors: Array<string> = []
    page.on("pageerror", (error) => errors.push(error.message))
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()))
    await page.goto(url)
    if (key !== undefined) {
      await page.getByLabel("API key or token").fill(key)
      await page.getByRole("button", { name: "Use it" }).click()
    }
    await page.getByRole("heading", { level: 1 }).waitFor()
    // before the credential was given, the server refused
    errors.length = 0
    const show = async (path: string) => {
      await page.goto(`${url}/#/${path}`)
      await page.getByRole("heading", { level: 1 }).waitFor()
      await page.locator("main", { hasText: "Loading…" }).waitFor({ state: "hidden" })
    }
    return { page, errors, show, close: () => context.close() }
  }
  const stop = async () => {
    await browser.close()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
  return { url, system, send, processed, open, stop }
}
