// The page of the HTTP reference has the routes that a server has.
import { readFileSync } from "node:fs"
import { expect, test } from "vitest"
import type { System } from "../../../src/system/system.ts"
import { startServer } from "../../support/aggregate-http.ts"
import { noChanges, noViews } from "../../support/http.ts"

const page = readFileSync(new URL("../../../docs/reference/http.md", import.meta.url), "utf8")

test("http.md has every route of a server, and no other", async () => {
  // the routes of operations are described without a system that they could ask
  const system = { database: {} } as unknown as System
  const running = await startServer(undefined, {}, { system, views: noViews, changes: noChanges })
  const response = await fetch(`${running.url}/openapi.json`)
  const { paths } = (await response.json()) as { readonly paths: Readonly<Record<string, object>> }
  const pages = await Promise.all(["/docs", "/openapi.json"].map((path) => fetch(running.url + path)))
  await running.stop()
  expect(pages.map(({ status }) => status)).toEqual([200, 200])
  const routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) =>
      `${method.toUpperCase()} ${path}`
        .replace(/\/views\/[^/]+/, "/views/NAME")
        .replace(/\/aggregates\/[^/]+/, "/aggregates/NAME")
        .replace(/\/commands\/.+/, "/commands/COMMAND")
        .replaceAll(/\{(\w+)\}/g, (_, name: string) => name.toUpperCase())
    )
  )
  const documented = [...page.matchAll(/^\| `((?:GET|POST) [^`]+)`/gm)].map(([, route]) => route)
  expect(documented.toSorted()).toEqual(
    [...new Set([...routes, "GET /", "GET /docs", "GET /openapi.json", "GET /status"])].toSorted()
  )
})
