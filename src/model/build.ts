// Builds: what one replay of a projection produces. The code declares versions; the database has numbered builds of them. Pure.
import type { Application } from "./application.ts"
import type { Projection } from "./projection.ts"

/** The builds of each declared projection, by number, and the declaration of each build. Builds are compared as objects. */
const builds = new WeakMap<Projection.Any, Map<number, Projection.Any>>()
const declarations = new WeakMap<Projection.Any, Projection.Any>()

/**
 * The build of a projection with this number: the projection, whose `version` is the number of the build. A build and its number always
 * give the same object. A build is taken for its declaration.
 */
export const buildOf = <P extends Projection.Any>(projection: P, number: number): P => {
  const declared = declarationOf(projection)
  if (declared.version === number) return declared
  const known = builds.get(declared) ?? new Map<number, Projection.Any>()
  builds.set(declared, known)
  const build = known.get(number) ?? { ...declared, version: number }
  known.set(number, build)
  declarations.set(build, declared)
  return build as P
}

/** The projection that the code declares, of which this is a build. */
export const declarationOf = <P extends Projection.Any>(build: P): P =>
  (declarations.get(build) as P | undefined) ?? build

/** A build's name in groups, metrics, the status and schemas: `<name>_v<number>`. */
export const buildName = ({ name, version }: Pick<Projection.Any, "name" | "version">): string => `${name}_v${version}`

/** The projection of an application that has this name and declares this version; undefined if there is none. */
export const declaredVersion = (
  { projections }: Pick<Application.Any, "projections">,
  name: string,
  version: number
): Projection.Any | undefined =>
  projections
    .map(({ projection }) => projection as Projection.Any)
    .find((one) => one.name === name && one.version === version)
