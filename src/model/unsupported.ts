// Projections that types allow and that cannot run, at all or inline, with the reason and the remedy. Pure.
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
  const why = `${writers}, so several partitions would write its rows; use a window for each of them, or re-key the events with \`Projection.rekey\``
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

/** The remedy of everything that keeps a projection from running inline. */
const useAsync = "run it with `Projection.async`"
/**
 * Why a projection cannot run inline, in the statement that appends an aggregate's events, and what to do instead; undefined if it can. There
 * are no other streams' events there, no position, no stream time and no outbox.
 */
export const inlineProblem = (projection: Projection.Any): string | undefined => {
  const { dedupe, enrich, sends, sources, writes } = projection
  const [source] = sources
  if (sources.length !== 1 || source?.kind !== "aggregate")
    return `it reads ${sources.map(({ name }) => name).join(", ")}, and an inline projection reads one aggregate; ${useAsync}`
  if (dedupe !== undefined)
    return `it has \`dedupe\`, and appends have no duplicates to ignore; leave it out, or ${useAsync}`
  const [lookup] = Object.keys(enrich)
  if (lookup !== undefined) return `it looks up ${lookup}, which an append does not wait for; ${useAsync}`
  const [sent] = sends
  if (sent !== undefined) return `it sends commands to ${sent.name}, and an append sends none; ${useAsync}`
  for (const target of writes as ReadonlyArray<Writable>) {
    if (target.kind === "topic" || (target.kind === "window" && target.topic !== undefined))
      return `${target.name} is published, and an append publishes nothing but its events; ${useAsync}`
    if (target.kind === "window" && target.shape.type !== "global" && target.graceMs !== Infinity)
      return `${target.name} closes by stream time, which an append does not have; declare it with \`grace: "Infinity"\`, or ${useAsync}`
  }
  return definitionProblem(projection)
}
