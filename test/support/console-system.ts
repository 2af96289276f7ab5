// A running system with its console, in this process, and a Chromium that opens it, for tests of pages.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { BrowserContextOptions } from "playwright-core"
import { expect } from "vitest"
import type { ServeOptions } from "../../src/server/server.ts"
import type { System } from "../../src/system/system.ts"
import { chromium, goTo, type Opened, signIn } from "./browser/console.ts"
import { type Keys, serveSystem } from "./served-system.ts"

/** A page of the console. */
export interface OpenPage extends Opened {
  /** Shows a page by its address, `entity/N1?at=…`. */
  readonly show: (path: string) => Promise<void>
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
  const browser = await run(chromium)
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
    const opened = await signIn(browser, url, key, { timezoneId: "UTC", ...options })
    return { ...opened, show: (path) => goTo(opened.page, url, path) }
  }
  const stop = () => Effect.runPromise(Scope.close(scope, Exit.void))
  return { url, system, send, processed, open, stop }
}
