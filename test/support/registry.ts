// A registry of npm packages for tests: it has the packages that are given as tarballs, and sends clients to the real registry for all others.
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const upstream = "https://registry.npmjs.org"

/** A package: its package.json and its tarball. */
export interface Published {
  readonly manifest: { readonly name: string; readonly version: string }
  readonly tarball: string
}

/** Starts the registry. */
export const startRegistry = async (packages: ReadonlyArray<Published>) => {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? "/").replace(/\?.*/, "")
    const own = packages.find(({ manifest: { name } }) => path === `/${name}` || path.startsWith(`/${name}/-/`))
    if (own === undefined) {
      response.writeHead(302, { location: `${upstream}${request.url}` }).end()
      return
    }
    const tarball = readFileSync(own.tarball)
    if (path.endsWith(".tgz")) {
      response.writeHead(200, { "content-type": "application/octet-stream" }).end(tarball)
      return
    }
    const { name, version } = own.manifest
    const integrity = `sha512-${createHash("sha512").update(tarball).digest("base64")}`
    const dist = { tarball: `${url}/${name}/-/${name}-${version}.tgz`, integrity }
    const versions = { [version]: { ...own.manifest, dist } }
    response.writeHead(200, { "content-type": "application/json" })
    response.end(JSON.stringify({ name, "dist-tags": { latest: version }, versions }))
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, stop: () => new Promise<void>((resolve) => void server.close(() => resolve())) }
}
