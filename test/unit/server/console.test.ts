// The files of the console, without a browser: what is sent, what it may load, and how large it is.
import { gunzipSync } from "node:zlib"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { createHash } from "node:crypto"
import fastify from "fastify"
import { expect, test } from "vitest"
import { parseAst } from "vitest/node"
import { lostSpaces } from "../../support/browser/templates.ts"
import { joined } from "../../../src/server/console/joined.ts"
import { consoleFiles, consolePage, policyOf, compact } from "../../../src/server/console/routes.ts"

const files = consoleFiles()
const root = join(import.meta.dirname, "../../../src/console")
/** The modules of the console as they are written, by their paths. */
const sources = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".js"))
  .map((path) => [path, readFileSync(join(root, path), "utf8")] as const)

test("all imports of the console's modules are files that the server has, or names of the import map", () => {
  const page = files.get("/")!.body.toString("utf8")
  const { imports } = JSON.parse(/<script type="importmap">([^<]+)</.exec(page)![1]!) as {
    readonly imports: Readonly<Record<string, string>>
  }
  for (const target of Object.values(imports)) expect(files.has(target), target).toBe(true)
  let count = 0
  for (const [path, { body, type }] of files) {
    if (!type.startsWith("text/javascript") || path.endsWith("/uplot.js")) continue
    for (const [, specifier = ""] of body
      .toString("utf8")
      .matchAll(/(?:^(?:import|export)\b[^"]*\bfrom\s*|\bimport\()"([^"]+)"/gm)) {
      count++
      const target = imports[specifier] ?? new URL(specifier, `http://console${path}`).pathname
      expect(files.has(target), `${path} imports ${specifier}`).toBe(true)
    }
  }
  expect(count).toBeGreaterThan(40)
  for (const [, target] of page.matchAll(/(?:src|href)="([^"]+)"/g)) expect(files.has(target!), target).toBe(true)
})

test("comments and indentation are left out of what is sent, and nothing else; lines keep their numbers", () => {
  const module = 'const a = "// no"\n  // a comment\n/** one\n * of three\n */\nconst b = `/* text */` // kept\n'
  expect(compact(module)).toBe('const a = "// no"\n\n\n\n\nconst b = `/* text */` // kept\n')
  expect(compact("if (a) {\n  b(\n    c\n  )\n}\n")).toBe("if (a) {\nb(\nc\n)\n}\n")
})

test("indentation means nothing in the modules: no text of several lines is indented but templates of html", () => {
  const found = (source: string): ReadonlyArray<string> => {
    const texts: Array<string> = []
    const visit = (node: unknown, tag?: string): void => {
      if (typeof node !== "object" || node === null) return
      if (Array.isArray(node)) return node.forEach((one) => visit(one, tag))
      const one = node as { type?: string; quasis?: Array<{ value: { raw: string } }>; tag?: { name?: string } }
      if (one.type === "TemplateLiteral" && tag !== "html")
        texts.push(...one.quasis!.map(({ value: { raw } }) => raw).filter((raw) => /\n[ \t]/.test(raw)))
      for (const [key, child] of Object.entries(node))
        visit(child, one.type === "TaggedTemplateExpression" && key === "quasi" ? one.tag?.name : undefined)
    }
    visit(parseAst(source).body)
    return texts
  }
  expect(found("a(`\n  b`, html`<p>\n  ${`c\n d`}</p>`)")).toEqual(["\n  b", "c\n d"])
  for (const [path, source] of sources) expect(found(source), path).toEqual([])
})

test("all of it is under 150 kB as it is sent", () => {
  const size = [...files.values()].reduce((sum, { gzip }) => sum + gzip.length, 0)
  expect(size).toBeGreaterThan(30_000)
  expect(size).toBeLessThan(150_000)
})

test("no space between two words is lost beside a line break of a template", () => {
  expect(lostSpaces("html`<p>\n  a key with\n  <code>x</code>${b}\n  it</p>`")).toHaveLength(2)
  for (const [path, source] of sources) expect(lostSpaces(source), path).toEqual([])
})

test("nothing makes markup of text, and no code is made of it", () => {
  for (const [path, source] of sources)
    expect(source, path).not.toMatch(
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|style="/
    )
})

test("the policy has the hash of the import map, and nothing inline or from elsewhere", () => {
  const script = '{ "imports": {} }'
  const policy = policyOf(`<script type="importmap">${script}</script><script src="/a.js"></script>`)
  expect(policy).toContain(`script-src 'self' 'sha256-${createHash("sha256").update(script).digest("base64")}'`)
  expect(policy).toContain("default-src 'none'")
  expect(policy).not.toMatch(/unsafe|https?:|\*/)
})

test("files are compressed for clients that accept it, and not sent again to clients that have them", async () => {
  const app = fastify()
  consolePage(app)
  const zipped = await app.inject({ url: "/", headers: { "accept-encoding": "br, gzip" } })
  expect(zipped.headers["content-encoding"]).toBe("gzip")
  expect(gunzipSync(zipped.rawPayload).equals(files.get("/")!.body)).toBe(true)
  const plain = await app.inject({ url: "/console/app.js" })
  expect([plain.statusCode, plain.headers["content-type"]]).toEqual([200, "text/javascript; charset=utf-8"])
  expect(plain.headers["content-security-policy"]).toContain("frame-ancestors 'none'")
  const again = await app.inject({
    url: "/console/app.js",
    headers: { "if-none-match": String(plain.headers["etag"]) }
  })
  expect([again.statusCode, again.payload]).toEqual([304, ""])
  for (const url of ["/console/../package.json", "/console/%2e%2e/server/server.ts", "/console/pages", "/console/"])
    expect((await app.inject({ url })).statusCode, url).toBe(404)
  await app.close()
})

test("modules are joined into one file, and are at their own paths what is in it: each is made once", async () => {
  const file = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`
  const sources = new Map([
    [
      "/a/lib/count.js",
      "let n = 0\nglobalThis.made = (globalThis.made ?? 0) + 1\nexport const next = () => ++n\nexport class One {}"
    ],
    [
      "/a/lib/all.js",
      'import { next as one, One } from "./count.js"\nexport { join } from "node:path"\nexport const two = () => [one(), new One()]'
    ],
    ["/a/first.js", 'import { two } from "./lib/all.js"\nexport default () => two()[0]'],
    ["/a/later.js", 'import { next } from "./lib/count.js"\nexport default next'],
    [
      "/a/app.js",
      'import {\n  two\n} from "./lib/all.js"\nimport path from "node:path"\nconst load = { first: () => import("./first.js"), later: () => import("./later.js") }\nexport const run = async () => [two()[0], (await load.first()).default(), typeof path.join, String(load.later)]'
    ]
  ])
  const made = joined(sources, "/a/app.js", ["/a/first.js"])
  const entry = file(made.get("/a/app.js")!)
  const app = (await import(/* @vite-ignore */ entry)) as {
    readonly $modules: Readonly<Record<string, { run: () => unknown }>>
  }
  expect(await app.$modules["/a/app.js"]!.run()).toEqual([
    1,
    2,
    "function",
    expect.stringContaining('import("./later.js")')
  ])
  // a module that is loaded later shares what is in the file
  const own = made.get("/a/lib/count.js")!.replace('"/a/app.js"', JSON.stringify(entry))
  const { next, One } = (await import(/* @vite-ignore */ file(own))) as { next: () => number; One: unknown }
  expect([next(), typeof One, (globalThis as { made?: number }).made]).toEqual([3, "function", 1])
  expect(made.get("/a/first.js")).toContain('export default $modules["/a/first.js"].default')
  expect(made.get("/a/later.js")).toBe(sources.get("/a/later.js"))
  expect(Object.keys(app.$modules)).toContain("node:path")
})

test("each module that is joined exports what its source exports", () => {
  const app = files.get("/console/app.js")!.body.toString("utf8")
  let count = 0
  for (const [path, source] of sources) {
    const sent = files.get(`/console/${path}`)!.body.toString("utf8")
    if (path === "app.js" || !sent.startsWith("import { $modules }")) continue
    count++
    const named = [...source.matchAll(/^export (?:const|class) ([\w$]+)/gm)].map(([, name]) => name!)
    const again = [...source.matchAll(/^export \{ ([^}]+) \} from/gm)].flatMap(([, names]) => names!.split(", "))
    const [, exported = ""] = /^export const \{([^}]*)\}/m.exec(sent)!
    const names = exported.split(",").flatMap((name) => (name.trim() === "" ? [] : [name.trim()]))
    expect(names.toSorted(), path).toEqual([...named, ...again].toSorted())
    expect(sent.includes("export default"), path).toBe(/^export default/m.test(source))
    expect(app).toContain(`$modules["/console/${path}"] = (() => {`)
  }
  expect(count).toBeGreaterThan(15)
  // no import or export is left within the file
  expect(
    app
      .split("\n")
      .slice(4)
      .filter((line) => /^(import|export)\b/.test(line))
  ).toEqual([])
})
