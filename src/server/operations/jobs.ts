// Operations that take longer than a request: they run in the server's process, whatever becomes of the client that started them.
import { randomUUID } from "node:crypto"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { Problem, retryAfterSeconds } from "../http/problem.ts"
import { operationProblem } from "./problems.ts"
import { counted } from "../../text/counted.ts"

/** How many jobs run at once, and how many that have ended are kept. */
const most = { running: 8, ended: 50 }
/** How long a request waits for its job to end, in milliseconds: it then has the result at once. */
const momentMs = 1_000

/** What kind of operation a job is. `plan`, `explain` and `history` change nothing, and hold nothing else up. */
export type JobKind = "plan" | "rebuild" | "diff" | "promote" | "explain" | "history"
/** What is to be run. */
export interface NewJob {
  readonly kind: JobKind
  /** What it is about: a projection, a read model, or a key. */
  readonly subject: string
  /** The command that does the same. */
  readonly command: string
  /** Who started it. */
  readonly by: string
  /** Runs it, and returns the JSON text of its result. `progress` replaces what the job says about how far it is. */
  readonly run: (progress: (json: unknown) => void) => Effect.Effect<string, unknown, Scope.Scope>
}
interface Job extends Omit<NewJob, "run"> {
  readonly id: string
  readonly startedAt: number
  endedAt: number | undefined
  progress: unknown
  result: string | undefined
  problem: Problem | undefined
  fiber: Fiber.Fiber<string, unknown> | undefined
}
/** Of jobs about one subject, one of a group runs at a time. */
const groupOf = ({ kind }: Pick<Job, "kind">) => (isReading(kind) ? kind : "change")
const isReading = (kind: JobKind) => kind === "plan" || kind === "explain" || kind === "history"
const stateOf = ({ endedAt, problem }: Job) =>
  endedAt === undefined ? "running" : problem === undefined ? "done" : "failed"

/** The JSON text of a job. The result is the text that the job returned, so that no digit of a number is lost. */
const jsonOf = (job: Job): string => {
  const { by, command, endedAt, id, kind, problem, progress, result, startedAt, subject } = job
  const head = JSON.stringify({
    id,
    kind,
    subject,
    command,
    by,
    state: stateOf(job),
    started_at: new Date(startedAt).toISOString(),
    ended_at: endedAt === undefined ? null : new Date(endedAt).toISOString(),
    progress: progress ?? null,
    error: problem === undefined ? null : { code: problem.code, message: problem.message, try: problem.try }
  })
  return `${head.slice(0, -1)},"result":${result ?? "null"}}`
}

/** What a request for a job is answered. */
export interface JobAnswer {
  readonly id: string
  /** 200 if it has ended, 202 if it runs. */
  readonly status: 200 | 202
  readonly json: string
}

/** The jobs of this process. They are not stored: what they do is, as if the command had been run and killed when the process ends. */
export class Jobs {
  readonly #jobs = new Map<string, Job>()

  /**
   * Starts a job, and waits a moment for its end. Rejects with a `Problem`: 409 if one of its group runs for the same subject, 429 if
   * too many run, and that of the operation if it fails within the moment.
   */
  async start(job: NewJob): Promise<JobAnswer> {
    const running = [...this.#jobs.values()].filter(({ endedAt }) => endedAt === undefined)
    const other = running.find((one) => one.subject === job.subject && groupOf(one) === groupOf(job))
    if (other !== undefined)
      throw new Problem(
        409,
        "busy",
        `a ${other.kind} of ${job.subject} is under way since ${new Date(other.startedAt).toISOString()}`,
        `wait until it has ended: GET /v1/operations/jobs/${other.id}`
      )
    if (running.length >= most.running)
      throw new Problem(
        429,
        "overloaded",
        `${counted(running.length, "job")} run${running.length === 1 ? "s" : ""} in this process, which is the most`,
        "wait until one has ended: GET /v1/operations/jobs",
        retryAfterSeconds
      )
    const { run, ...described } = job
    const own: Job = {
      ...described,
      id: randomUUID(),
      startedAt: Date.now(),
      endedAt: undefined,
      progress: undefined,
      result: undefined,
      problem: undefined,
      fiber: undefined
    }
    this.#jobs.set(own.id, own)
    const fiber = Effect.runFork(Effect.scoped(run((progress) => void (own.progress = progress))))
    own.fiber = fiber
    const ended = new Promise<void>((resolve) =>
      fiber.addObserver((exit) => {
        this.#end(own, exit)
        resolve()
      })
    )
    let timer: NodeJS.Timeout | undefined
    const moment = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, momentMs)
    })
    await Promise.race([ended, moment])
    clearTimeout(timer)
    if (own.problem !== undefined) throw own.problem
    return this.#answerOf(own)
  }

  #end(job: Job, exit: Exit.Exit<string, unknown>): void {
    job.endedAt = Date.now()
    job.fiber = undefined
    if (Exit.isSuccess(exit)) job.result = exit.value
    else
      job.problem = Cause.hasInterruptsOnly(exit.cause)
        ? new Problem(
            503,
            "shutting_down",
            "the process ended while the job ran",
            `go on with it: ${job.command}`,
            retryAfterSeconds
          )
        : operationProblem(Cause.squash(exit.cause))
    const ended = [...this.#jobs.values()].filter(({ endedAt }) => endedAt !== undefined)
    for (const { id } of ended.slice(0, -most.ended)) this.#jobs.delete(id)
  }
  #answerOf(job: Job): JobAnswer {
    return { id: job.id, status: job.endedAt === undefined ? 202 : 200, json: jsonOf(job) }
  }

  /** The job with an id. Throws a `Problem` 404 if this process has none. */
  find(id: string): JobAnswer {
    const job = this.#jobs.get(id)
    if (job !== undefined) return this.#answerOf(job)
    throw new Problem(
      404,
      "unknown_name",
      `this process has no job ${JSON.stringify(id)}: it was another process's, the process that ran it has ended, or ${most.ended} others have ended since`,
      "see what became of it: GET /v1/operations/projections"
    )
  }
  /** The jobs as one JSON text, the newest first, without their results. */
  list(): string {
    const jobs = [...this.#jobs.values()].toReversed().map((job) => jsonOf({ ...job, result: undefined }))
    return `{"jobs":[${jobs.join(",")}]}`
  }
  /** The job that runs for a projection; null if none does. */
  runningFor(subject: string): string | null {
    const job = [...this.#jobs.values()].find(
      (one) => one.endedAt === undefined && !isReading(one.kind) && one.subject === subject
    )
    return job?.id ?? null
  }
  /** Interrupts what runs, and waits for it. */
  async close(): Promise<void> {
    const fibers = [...this.#jobs.values()].flatMap(({ fiber }) => fiber ?? [])
    await Effect.runPromise(Fiber.interruptAll(fibers))
  }
}
