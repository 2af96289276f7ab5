// Projections that types allow and that cannot run yet, with the reason and the remedy. Pure.
import type { Writable } from "./handler.ts"
import type { Projection } from "./projection.ts"
import type { Window } from "./window.ts"

const windowReason = (window: Window.Any, sources: number): string | undefined => {
  const { aggregate, emit, name, shape, shared, topic } = window
  if (shape.type === "session") {
    return `${name} is a session window, which is not supported yet; use a tumbling, hopping or calendar window`
  }
  if (emit === "onWindowClose") {
    return `${name} emits "onWindowClose", which is not supported yet; use "onUpdate"`
  }
  if (sources === 1 && !shared) return undefined
  const writers = shared ? "is shared" : `the projection has ${sources} sources`
  const why = `${writers}, so several partitions would write its rows; use a window for each of them, or re-key the events through one topic`
  if (topic !== undefined) return `${name} is published and ${why}`
  return Object.values(aggregate).some(({ sql }) => sql === "fold") ? `${name} has a fold and ${why}` : undefined
}

/** Why a projection cannot run at all, not even in the test kit, and what to do instead; undefined if it can. */
export const definitionProblem = ({ sources, writes }: Projection.Any): string | undefined => {
  const twice = sources.find(({ name }, i) => sources.findIndex((other) => other.name === name) < i)
  if (twice !== undefined) return `it lists the source ${twice.name} twice; list it once`
  for (const target of writes as ReadonlyArray<Writable>) {
    const reason = target.kind === "window" ? windowReason(target, sources.length) : undefined
    if (reason !== undefined) return reason
  }
  return undefined
}
/** Why the runner cannot run a projection, and what to do instead; undefined if it can. */
export const unsupportedReason = (projection: Projection.Any): string | undefined => {
  const aggregate = projection.sources.find(({ kind }) => kind !== "topic")
  if (aggregate === undefined) return definitionProblem(projection)
  return `it reads the aggregate ${aggregate.name}, whose events are not in a log yet; use \`Projection.live\``
}
