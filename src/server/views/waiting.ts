// Waits until the projections that a view depends on have processed the positions of a token.
import type { Application } from "../../model/application.ts"
import { writtenTopics } from "../../model/chains.ts"
import type { Projection } from "../../model/projection.ts"
import { tokenPauses } from "../../log/position-token.ts"
import type { Problem } from "../http/problem.ts"
import { notYet, waitForPositions } from "../http/token.ts"
import type { DeclaredView } from "./catalog.ts"
import type { Behind, Goals, ViewReader } from "./reader.ts"

/** What has to have processed a token. */
export interface Dependencies {
  /** Undefined: all projections of the system. */
  readonly projections: ReadonlyArray<string> | undefined
  /** How many links a chain of them can have. */
  readonly links: number
}
/** What a view depends on: its projections, and those that publish what these read. Of a declared view it is not known which tables it reads. */
export const dependenciesOf = ({ projections }: Application.Any, { kind, writtenBy }: DeclaredView): Dependencies => {
  const all = projections.map(({ projection }) => projection as Projection.Any)
  const publishers = all.filter((one) => writtenTopics(one).length > 0)
  if (kind === "view") return { projections: undefined, links: publishers.length }
  const found = new Set(writtenBy)
  // a set yields what is added while it is iterated
  for (const name of found) {
    const sources = new Set(
      all.filter((one) => one.name === name).flatMap((one) => one.sources.map((source) => source.name))
    )
    for (const one of publishers) if (writtenTopics(one).some((topic) => sources.has(topic.name))) found.add(one.name)
  }
  return { projections: [...found], links: found.size - writtenBy.length }
}

/** Waits for a token, at most `waitMs`. Rejects with a `Problem` 400 if it is no token, and 504 if that takes too long. */
export const waitFor = async (
  reader: ViewReader,
  token: string,
  { links, projections }: Dependencies,
  {
    isGone,
    parameter,
    waitMs
  }: { readonly waitMs: number; readonly isGone: () => boolean; readonly parameter?: string }
): Promise<void> => {
  const positions = waitForPositions(token, parameter).map(
    ({ partition, position, topic }) => [topic, partition, position] as const
  )
  let goals: Goals = { positions }
  const deadline = performance.now() + waitMs
  for (let step = 0; step <= 2 * links; step++) {
    if (step > 0) goals = await reader.nextGoals(goals, projections)
    for (const pauses = tokenPauses(); ;) {
      const [behind] = await reader.behind(goals, projections)
      if (behind === undefined) break
      if (performance.now() >= deadline || isGone()) throw stillBehind(behind, waitMs)
      await new Promise((done) => setTimeout(done, pauses.next().value))
    }
  }
}
const stillBehind = ({ partition, position, topic, wanted, who }: Behind, waitMs: number): Problem =>
  notYet(
    `after ${waitMs} ms ${who} has processed ${topic}/${partition} up to position ${position}, and the token asks for ${wanted}`,
    "send the request again after Retry-After seconds, or see millrace status for what is halted"
  )
