// The console: a page at `/` that shows and operates the system with the public routes alone. Its files are in `src/console`.
import { createHash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, extname, join, relative, sep } from "node:path"
import { gzipSync } from "node:zlib"
import { fileURLToPath } from "node:url"
import type { FastifyInstance } from "fastify"
import { joined } from "./joined.ts"

/** A file as it is sent. */
export interface ConsoleFile {
  readonly type: string
  readonly body: Buffer
  /** The same, compressed. */
  readonly gzip: Buffer
  readonly etag: string
}

const root = fileURLToPath(new URL("../../console/", import.meta.url))
const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml"
}
/** The libraries of the console, by the name under which it has them. */
const libraries: Readonly<Record<string, string>> = {
  "preact.js": "preact",
  "hooks.js": "preact/hooks",
  "htm.js": "htm",
  "uplot.js": "uplot/dist/uPlot.iife.min.js",
  "uplot.css": "uplot/dist/uPlot.min.css"
}
const require = createRequire(import.meta.url)
/** Where a module of a package is, in the form for `import`: `require` finds the other form of htm, which is beside it. */
const pathOf = (specifier: string): string => {
  const found = require.resolve(specifier)
  return specifier === "htm" ? join(dirname(found), "htm.mjs") : found
}

/**
 * A module or a style sheet without indentation and the comments that have lines of their own; what is left stays in its lines. Of texts of several
 * lines only templates of `html` may be indented, where a line's indentation means nothing.
 */
export const compact = (text: string): string =>
  text
    .replaceAll(/^[ \t]*(?:\/\*[\s\S]*?\*\/|\/\/.*)$/gm, (comment) => comment.replaceAll(/[^\n]/g, ""))
    .replaceAll(/^[ \t]+/gm, "")

const fileOf = (path: string, text?: string): ConsoleFile => {
  const body = text === undefined ? readFileSync(path) : Buffer.from(text)
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`
  return {
    type: types[extname(path).replace(".mjs", ".js")] ?? "application/octet-stream",
    body,
    gzip: gzipSync(body, { level: 9 }),
    etag
  }
}

/** All files of the console by their paths: `/` is the page, the rest is below `/console/`. What the first page needs is in one of them, `app.js`. */
export const consoleFiles = (): ReadonlyMap<string, ConsoleFile> => {
  const files = new Map<string, ConsoleFile>([["/", fileOf(join(root, "index.html"))]])
  const modules = new Map<string, string>()
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    const name = relative(root, path).split(sep).join("/")
    if (!entry.isFile() || types[extname(name)] === undefined || name === "index.html") continue
    const isText = /\.(js|css)$/.test(name)
    const text = isText ? compact(readFileSync(path, "utf8")) : undefined
    if (text !== undefined && name.endsWith(".js")) modules.set(`/console/${name}`, text)
    else files.set(`/console/${name}`, fileOf(path, text))
  }
  for (const [path, text] of joined(modules, "/console/app.js", ["/console/pages/overview.js"]))
    files.set(path, fileOf(path, text))
  for (const [name, specifier] of Object.entries(libraries))
    files.set(`/console/vendor/${name}`, { ...fileOf(pathOf(specifier)), type: types[extname(name)]! })
  return files
}

/** The hashes of the inline scripts of a page, for its Content-Security-Policy: the import map cannot be a file. */
const hashesOf = (html: string): ReadonlyArray<string> =>
  [...html.matchAll(/<script[^>]*>([^<]+)<\/script>/g)].map(
    ([, script]) => `'sha256-${createHash("sha256").update(script!).digest("base64")}'`
  )
/** What the page may load and do: nothing that is not from this server, no inline scripts or styles, and no other site may frame it. */
export const policyOf = (html: string): string =>
  [
    "default-src 'none'",
    `script-src 'self' ${hashesOf(html).join(" ")}`,
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; ")

/** Adds `GET /` and its files. They are open to everyone who reaches the server: what they show comes from routes that ask for a credential. */
export const consolePage = (app: FastifyInstance): void => {
  const files = consoleFiles()
  const policy = policyOf(files.get("/")!.body.toString("utf8"))
  for (const [url, { body, etag, gzip, type }] of files)
    app.get(
      url,
      { schema: { hide: true }, config: { scope: "open", parameters: "any" }, helmet: false },
      async (request, reply) => {
        reply.headers({
          etag,
          "cache-control": "no-cache",
          "content-security-policy": policy,
          "cross-origin-opener-policy": "same-origin",
          vary: "accept-encoding",
          "cross-origin-resource-policy": "same-origin",
          "referrer-policy": "no-referrer",
          "x-content-type-options": "nosniff"
        })
        if (request.headers["if-none-match"] === etag) return reply.code(304).send()
        reply.type(type)
        if (!/\bgzip\b/.test(request.headers["accept-encoding"] ?? "")) return reply.send(body)
        return reply.header("content-encoding", "gzip").send(gzip)
      }
    )
}
