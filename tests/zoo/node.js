#!/usr/bin/node
// Node.js: timers, promises, a worker thread, a child process, a watched file, and HTTP on a
// connection that stays. Answers like zoo.py does.
'use strict'

const { spawn } = require('child_process')
const { createHash } = require('crypto')
const fs = require('fs')
const http = require('http')
const net = require('net')
const readline = require('readline')
const { Worker } = require('worker_threads')

const PATIENCE = 20_000
const parts = {}

function expect(found, wanted, what) {
  if (found !== wanted) throw new Error(`${what} is ${found}, not ${wanted}`)
}

// One step after the other, for ever.
async function part(name, step) {
  parts[name] = { count: 0, failure: null }
  try {
    for (;;) {
      await step(parts[name].count)
      parts[name].count++
    }
  } catch (e) {
    parts[name].failure = e
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const sha = (text) => createHash('sha256').update(text).digest('hex')

// An interval may be late, and never early or gone.
function intervals() {
  let ticks = 0
  setInterval(() => ticks++, 10)
  return part('intervals', async () => {
    const before = ticks
    while (ticks < before + 3) await sleep(1)
  })
}

function worker() {
  const code = `
    const { parentPort } = require('worker_threads')
    parentPort.on('message', (n) => parentPort.postMessage(n * n))`
  const thread = new Worker(code, { eval: true })
  return part('worker', async (n) => {
    const answer = new Promise((done) => thread.once('message', done))
    thread.postMessage(n)
    expect(await answer, n * n, "the worker's answer")
    await sleep(5)
  })
}

function child() {
  const cat = spawn('cat')
  const lines = readline.createInterface({ input: cat.stdout })[Symbol.asyncIterator]()
  return part('child', async (n) => {
    cat.stdin.write(`${n}\n`)
    expect((await lines.next()).value, `${n}`, 'what came through the pipes')
    await sleep(5)
  })
}

// All requests over one connection of the agent.
function requests() {
  const body = 'x'.repeat(200_000)
  const path = '/tmp/node-http.sock'
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  let connections = 0
  const server = http.createServer((request, response) => response.end(request.url + body))
  server.keepAliveTimeout = 0
  server.on('connection', () => connections++)
  const ask = (url) =>
    new Promise((done, failed) => {
      http.get({ socketPath: path, path: url, agent }, (response) => {
        let text = ''
        response.on('data', (piece) => (text += piece)).on('end', () => done(text)).on('error', failed)
      }).on('error', failed)
    })
  server.listen(path, () =>
    part('requests', async (n) => {
      expect(sha(await ask(`/${n}`)), sha(`/${n}${body}`), 'the body')
      expect(connections, 1, 'the number of connections')
    }),
  )
}

// Changes of a file in memory are heard of. One that nobody has heard of yet when a
// checkpoint comes is lost: CRIU drops it.
function watcher() {
  const path = '/dev/shm/watched'
  fs.writeFileSync(path, '')
  let heard = 0
  fs.watch(path, () => heard++)
  return part('watcher', async (n) => {
    const before = heard
    while (heard === before) {
      fs.appendFileSync(path, `${n}\n`)
      for (let ms = 0; ms < 500 && heard === before; ms += 10) await sleep(10)
    }
  })
}

// Objects that survive many collections.
function heap() {
  const kept = new Map()
  return part('heap', async (n) => {
    kept.set(n % 20_000, { text: sha(`${n}`), n })
    const { text, n: old } = kept.get(Math.floor(Math.random() * kept.size))
    expect(text, sha(`${old}`), 'an object')
    if (n % 100 === 0) await sleep(1)
  })
}

async function movesOn(name) {
  const before = parts[name].count
  const deadline = Date.now() + PATIENCE
  while (parts[name].count < before + 2) {
    if (parts[name].failure) throw parts[name].failure
    if (Date.now() > deadline) throw new Error(`${name}: nothing for ${PATIENCE} ms`)
    await sleep(10)
  }
  return `${name} ${parts[name].count}`
}

async function answer(client) {
  try {
    const found = []
    for (const name of Object.keys(parts)) found.push(await movesOn(name))
    client.end(`ok: ${found.join(', ')}\n`)
  } catch (e) {
    client.end(`lost: ${e}\n`)
  }
}

for (const start of [intervals, worker, child, watcher, requests, heap]) start()
process.on('SIGTERM', () => process.exit(0))
net.createServer(answer).listen('/tmp/zoo.sock', () => fs.writeSync(1, 'ready\n'))
