// A JVM: threads under locks, a scheduler, a heap that is collected all the time,
// and HTTP on a loopback connection that stays. Answers like zoo.py does.

import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.nio.channels.ServerSocketChannel;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

public class Jvm {
    static final long PATIENCE = 20_000;
    static final Map<String, Part> parts = new LinkedHashMap<>();

    interface Step { void take(long n) throws Exception; }

    /** A thread that takes one step after the other and counts them. */
    static class Part extends Thread {
        final Step step;
        volatile long count;
        volatile Throwable failure;

        Part(String name, Step step) {
            super(name);
            this.step = step;
            setDaemon(true);
            parts.put(name, this);
            start();
        }

        @Override public void run() {
            try {
                for (;; count++) {
                    step.take(count);
                    Thread.sleep(5);
                }
            } catch (Throwable e) {
                failure = e;
            }
        }
    }

    static void expect(Object found, Object wanted, String what) {
        if (!wanted.equals(found)) throw new IllegalStateException(what + " is " + found + ", not " + wanted);
    }

    /** Two threads hand numbers over. */
    static void threads() {
        var there = new SynchronousQueue<Long>();
        var back = new SynchronousQueue<Long>();
        new Part("squares", n -> back.put(there.take() * n));
        new Part("threads", n -> {
            there.put(n);
            expect(back.take(), n * n, "what the other thread made");
        });
    }

    static void scheduler() {
        var ticks = new AtomicLong();
        Executors.newScheduledThreadPool(2, Jvm::daemon)
            .scheduleAtFixedRate(ticks::incrementAndGet, 0, 10, TimeUnit.MILLISECONDS);
        new Part("scheduler", n -> {
            for (long before = ticks.get(); ticks.get() < before + 3; ) Thread.sleep(1);
        });
    }

    /** Each object is checked when it is replaced, some collections later. */
    static void heap() {
        var kept = new HashMap<Integer, byte[]>();
        new Part("heap", n -> {
            for (int i = 0; i < 100; i++) {
                var bytes = new byte[10_000];
                java.util.Arrays.fill(bytes, (byte) i);
                var old = kept.put(i * 10 + (int) (n % 10), bytes);
                if (old != null) expect(old[9_999], (byte) i, "an object");
            }
        });
    }

    static void pipe() throws Exception {
        var pipe = Pipe.open();
        new Part("pipe", n -> {
            pipe.sink().write(ByteBuffer.allocate(8).putLong(0, n));
            var read = ByteBuffer.allocate(8);
            while (read.hasRemaining()) pipe.source().read(read);
            expect(read.getLong(0), n, "what came through the pipe");
        });
    }

    /** With the argument tcp: the client's connection is established all the time. */
    static void requests() throws Exception {
        // They count the time that passes outside, too.
        System.setProperty("jdk.httpclient.keepalive.timeout", "3600");
        System.setProperty("sun.net.httpserver.idleInterval", "3600");
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 8080), 0);
        var ports = new HashMap<Integer, Long>();
        server.createContext("/", exchange -> {
            ports.merge(exchange.getRemoteAddress().getPort(), 1L, Long::sum);
            var body = (exchange.getRequestURI().getPath() + "x".repeat(100_000)).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(Executors.newSingleThreadExecutor(Jvm::daemon));
        server.start();
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        new Part("requests", n -> {
            var uri = URI.create("http://127.0.0.1:8080/" + n);
            var body = client.send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).body();
            expect(body, "/" + n + "x".repeat(100_000), "the body");
            expect(ports.size(), 1, "the number of connections");
        });
    }

    static Thread daemon(Runnable what) {
        var thread = new Thread(what);
        thread.setDaemon(true);
        return thread;
    }

    static String movesOn(Part part) throws Exception {
        long before = part.count, deadline = System.currentTimeMillis() + PATIENCE;
        while (part.count < before + 2) {
            if (part.failure != null) throw new IllegalStateException(part.getName() + ": " + part.failure);
            if (System.currentTimeMillis() > deadline)
                throw new IllegalStateException(part.getName() + ": nothing for " + PATIENCE + " ms");
            Thread.sleep(10);
        }
        return part.getName() + " " + part.count;
    }

    static String answer() {
        try {
            var found = new java.util.ArrayList<String>();
            for (var part : parts.values()) found.add(movesOn(part));
            return "ok: " + String.join(", ", found) + "\n";
        } catch (Throwable e) {
            return "lost: " + e + "\n";
        }
    }

    public static void main(String[] arguments) throws Exception {
        threads();
        scheduler();
        heap();
        pipe();
        if (arguments.length > 0 && arguments[0].equals("tcp")) requests();
        var listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        listener.bind(UnixDomainSocketAddress.of("/tmp/zoo.sock"));
        System.out.println("ready");
        for (;;) {
            try (var client = listener.accept()) {
                client.write(ByteBuffer.wrap(answer().getBytes()));
            }
        }
    }
}
