// Requests that may take long: the server answers with a job, which is asked until it has ended.
import { ApiError, get, send } from "./api.js"

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
export const jobPath = (id) => `/v1/operations/jobs/${encodeURIComponent(id)}`

/** The job that runs already for what a request asks; undefined if none does any more. */
const runningJob = async ({ kind, subject }) => {
  const { jobs } = await get("/v1/operations/jobs")
  return jobs.find((job) => job.state === "running" && job.kind === kind && job.subject === subject)
}

/**
 * Sends a request that may become a job, and waits for its end: its result. `onProgress` gets each answer, that of the end included. Rejects with the job's error. With `same`,
 * the `{ kind, subject }` of a job that only reads, one that runs already is waited for, and the request sent after it.
 */
export const runJob = async (path, body, onProgress, same) => {
  let state
  while (state === undefined) {
    try {
      state = (await send("POST", path, { body })).body
    } catch (error) {
      if (error.code !== "busy" || same === undefined) throw error
      const running = await runningJob(same)
      if (running !== undefined) onProgress?.(running)
      await sleep(500)
    }
  }
  onProgress?.(state)
  while (state.state === "running") {
    await sleep(500)
    state = await get(jobPath(state.id))
    onProgress?.(state)
  }
  if (state.state !== "failed") return state.result
  const { code, message, try: advice } = state.error
  throw new ApiError({ code, message, advice, status: 0 })
}
