// Adds jobs to graphile-worker's queue and prints how fast: node graphile_add.js SOCKET_DIRECTORY COUNT BATCH CONCURRENCY BYTES ROUND
// BATCH 1: one addJob for each, CONCURRENCY of them under way; more: add_jobs. Every job has a key of its own, which is what makes a repeat safe. Nothing takes jobs meanwhile.
'use strict';
const { Pool } = require('pg');
const { makeWorkerUtils } = require('graphile-worker');

// As its documentation adds many.
const ADD_JOBS = 'SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(SELECT json_populate_recordset(null::graphile_worker.job_spec, $1::json)))';

async function main() {
  const [host, count, batch, concurrency, bytes, round] = [process.argv[2], ...process.argv.slice(3).map(Number)];
  const pool = new Pool({ host, user: 'postgres', database: 'postgres', max: concurrency });
  const utils = await makeWorkerUtils({ pgPool: pool });
  await utils.migrate();
  const text = 'x'.repeat(bytes);
  let next = 0;
  async function one() {
    while (next < count) {
      const first = next;
      next = Math.min(count, next + batch);
      if (batch === 1) {
        await utils.addJob('change', { text }, { jobKey: `${round}-${first}` });
      } else {
        const jobs = [];
        for (let i = first; i < next; i++) jobs.push({ identifier: 'change', payload: { text }, job_key: `${round}-${i}` });
        await pool.query(ADD_JOBS, [JSON.stringify(jobs)]);
      }
    }
  }
  await utils.addJob('change', { text }, { jobKey: `${round}-warm` });
  await Promise.all(Array.from({ length: concurrency }, () => pool.query('SELECT 1')));
  const began = process.hrtime.bigint();
  await Promise.all(Array.from({ length: concurrency }, one));
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  const stored = Number((await pool.query('SELECT count(*) AS n FROM graphile_worker.jobs WHERE key LIKE $1', [`${round}-%`])).rows[0].n) - 1;
  if (stored !== count) throw new Error(`${stored} of ${count} jobs are there`);
  console.log(JSON.stringify({ count, seconds, per_s: count / seconds }));
  await utils.release();
  await pool.end();
}

main().catch((e) => { console.error(e); process.exit(1); });
