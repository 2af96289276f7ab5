// Finds axe-core, and a Chromium: the one that CHROMIUM names, one of this machine, Playwright's, or on Linux x64 the one that a package of the site brings.
import { existsSync, mkdirSync } from "node:fs"
import { delimiter, join } from "node:path"
import { pathToFileURL } from "node:url"
import { chromium } from "playwright-core"

const packages = join(import.meta.dirname, "node_modules")
/** Where axe-core is, which `npm run docs -- --browser` installs. */
export const axePath = join(packages, "axe-core/axe.min.js")
/** The Chromium of this machine, if it has one. */
export const installedChromium = (): string | undefined => {
  const given = process.env["CHROMIUM"]
  if (given !== undefined) return given
  const folders = (process.env["PATH"] ?? "").split(delimiter)
  return ["chromium", "chromium-browser", "google-chrome"]
    .flatMap((name) => folders.map((folder) => join(folder, name)))
    .concat(chromium.executablePath())
    .find((path) => existsSync(path))
}
/** Whether the package that the site installs has a Chromium for this machine. */
export const hasPackagedChromium = process.platform === "linux" && process.arch === "x64"

/** Whether that package is installed already. */
export const isPackagedChromiumHere = (): boolean =>
  hasPackagedChromium && existsSync(join(packages, "@sparticuz/chromium/package.json"))

interface PackagedChromium {
  readonly default: { readonly executablePath: () => Promise<string> }
}
/** Unpacks the Chromium of the package beside it; it takes some seconds the first time. */
const packagedChromium = async (): Promise<string> => {
  const index = join(packages, "@sparticuz/chromium/build/index.js")
  const { default: packaged } = (await import(pathToFileURL(index).href)) as PackagedChromium
  const before = process.env["TMPDIR"]
  process.env["TMPDIR"] = join(packages, ".chromium")
  mkdirSync(process.env["TMPDIR"], { recursive: true })
  try {
    return await packaged.executablePath()
  } finally {
    if (before === undefined) delete process.env["TMPDIR"]
    else process.env["TMPDIR"] = before
  }
}
/** Starts a Chromium without a window. */
export const launchChromium = async () => {
  const installed = installedChromium()
  if (installed === undefined && !hasPackagedChromium)
    throw new Error("Chromium is not installed. try: npx playwright-core install chromium, or name one in CHROMIUM")
  return await chromium.launch({ executablePath: installed ?? (await packagedChromium()), args: ["--no-sandbox"] })
}
