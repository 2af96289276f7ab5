// Resolves imports between the files of Millrace, and between those of Effect, by their text. Node asks the file system several times for each of
// the thousands that a start has, which took about a third of the processor time of `millrace --version`.
import module from "node:module"

/** The folders of Millrace's code: in a checkout, and in the published package. */
const own = ["../src/", "../dist/"].map((folder) => new URL(folder, import.meta.url).href)
/** What Node takes a file of them for. It strips the types of a checkout itself. */
const formats = { js: "module", ts: "module-typescript" }

const isOwn = (file) => own.some((folder) => file.startsWith(folder))
/** Whether a file is one of those, in which every relative import names a file with its extension. */
const isKnown = (file) => file.includes("/node_modules/effect/dist/") || isOwn(file)

/** Node's answers for the modules of Effect, by their names: a package has one version of it. */
const effect = new Map()

/** Begins to resolve so, where the runtime has hooks for that. A file that is missing is reported when it is read. */
export const resolveByText = () =>
  void module.registerHooks?.({
    resolve: (specifier, context, next) => {
      const { parentURL } = context
      if (parentURL === undefined || !isKnown(parentURL)) return next(specifier, context)
      const [, extension] = /^\.\.?\/.*\.(js|ts)$/.exec(specifier) ?? []
      if (extension !== undefined)
        return { url: new URL(specifier, parentURL).href, format: formats[extension], shortCircuit: true }
      if (!specifier.startsWith("effect/") || !isOwn(parentURL)) return next(specifier, context)
      const known = effect.get(specifier) ?? next(specifier, context)
      effect.set(specifier, known)
      return { ...known, shortCircuit: true }
    }
  })
