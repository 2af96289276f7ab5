// Files of TLS that are written while the server looks at them.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, test, vi } from "vitest"
import { followTls, readTls, type TlsReport } from "../../../src/server/http/tls.ts"
import { certificate } from "../../support/certificates.ts"

const folder = mkdtempSync(join(tmpdir(), "millrace-tls-files-"))
afterEach(() => {
  vi.useRealTimers()
  rmSync(folder, { recursive: true, force: true })
})

test("a chain is used once it was read twice in a row: not while a tool writes one certificate after the other", () => {
  vi.useFakeTimers()
  const authority = certificate("Authority")
  const [first, second] = ["first", "second"].map((name) => certificate(name, { by: authority }))
  const options = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem"), pollMs: 1_000 }
  const write = (cert: string, key: string) => {
    writeFileSync(options.key, key)
    writeFileSync(options.cert, cert)
  }
  write(first!.cert, first!.key)
  const used: Array<unknown> = []
  const reports: Array<TlsReport> = []
  const server = { setSecureContext: ({ cert }: { readonly cert?: unknown }) => void used.push(cert) }
  const stop = followTls(server, options, readTls(options), (report) => reports.push(report))
  vi.advanceTimersByTime(5_000)
  // its own certificate alone, and then with that of the authority
  write(second!.cert, second!.key)
  vi.advanceTimersByTime(1_000)
  write(second!.cert + authority.cert, second!.key)
  vi.advanceTimersByTime(1_000)
  expect(used).toEqual([])
  vi.advanceTimersByTime(1_000)
  expect(used).toEqual([second!.cert + authority.cert])
  // a failure is reported once, however often it is seen
  write("", second!.key)
  vi.advanceTimersByTime(10_000)
  expect(reports.map(({ level }) => level)).toEqual(["info", "warning"])
  stop()
  write(first!.cert, first!.key)
  vi.advanceTimersByTime(10_000)
  expect(used).toHaveLength(1)
})
