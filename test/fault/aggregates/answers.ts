// What commands were answered, each as often as it was sent: all answers to a command must be the same.
import type { Differences } from "../harness/differences.ts"
import type { Reply, Request } from "./messages.ts"

type Answer = Extract<Reply, { readonly kind: "executed" | "rejected" | "conflict" }>
/** A command and its answer. */
export interface Answered {
  readonly request: Request
  readonly answer: Answer
}

/** Whether a stream of this version is as the command expects it. */
const isMet = ({ expected }: Request, version: number): boolean =>
  expected === "any" || (expected === "exists" ? version > 0 : version === (expected === "noStream" ? 0 : expected))
const shown = ({ expected, id, kind, stream }: Request) => `${kind} ${id} on ${stream}, which expects ${expected},`
/** What must be the same in all answers to a command. A conflict may name a later version each time. */
const lasting = (answer: Answer): string => {
  if (answer.kind === "executed") return `executed ${answer.version} ${answer.count} ${answer.position}`
  return answer.kind === "rejected" ? `rejected ${answer.tag}` : answer.kind
}

/** The answers so far. */
export class Answers {
  readonly byId = new Map<string, Answered>()
  /** How often each kind of answer was given. */
  readonly counts: Record<string, number> = {}
  private readonly executed = new Set<string>()
  private readonly differences: Differences

  constructor(differences: Differences) {
    this.differences = differences
  }
  /** Notes an answer, and compares it with earlier ones. */
  note(request: Request, reply: Reply): void {
    const { differences } = this
    const { id } = request
    if (reply.kind === "failed" || reply.kind === "again")
      return differences.add("wrong", `${shown(request)}: ${reply.reason}`)
    if (reply.kind === "erased" || reply.kind === "state")
      return differences.add("wrong", `${shown(request)} was answered ${reply.kind}`)
    const name = reply.kind === "executed" && reply.repeated ? "repeated" : reply.kind
    this.counts[name] = (this.counts[name] ?? 0) + 1
    const before = this.byId.get(id)
    // refusals are not remembered: a stream that did not exist may exist later. A version that has passed never comes back
    const mayPassLater = request.expected === "exists" && before?.answer.kind === "conflict"
    if (before === undefined || mayPassLater) this.byId.set(id, { request, answer: reply })
    else if (lasting(before.answer) !== lasting(reply))
      differences.add("wrong", `${shown(request)} was answered ${lasting(before.answer)}, then ${lasting(reply)}`)
    if (reply.kind === "conflict" && isMet(request, reply.actual))
      differences.add("wrong", `${shown(request)}: a conflict at version ${reply.actual}, which it expects`)
    if (reply.kind !== "executed" || reply.repeated || reply.count === 0) return
    if (this.executed.has(id)) differences.add("doubled", `${shown(request)} was executed twice`)
    this.executed.add(id)
  }
}
