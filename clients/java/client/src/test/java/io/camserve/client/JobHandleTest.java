package io.camserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.camserve.v1.ErrorObject;
import io.camserve.v1.GetJobRequest;
import io.camserve.v1.Job;
import io.camserve.v1.JobEvent;
import io.camserve.v1.JobServiceGrpc;
import io.camserve.v1.StreamEvent;
import io.camserve.v1.WatchJobRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class JobHandleTest {
    private static final Duration WITHIN = Duration.ofMinutes(10);

    private final StillClock clock = new StillClock();
    private boolean tellsStatus;
    private int asked;
    private Server server;
    private ManagedChannel connection;
    private JobHandle job;

    @BeforeEach
    void start() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new Draining())
                .build()
                .start();
        connection = Grpc.newChannelBuilder("127.0.0.1:" + server.getPort(), InsecureChannelCredentials.create())
                .build();
        Retries retries = new Retries(new Backoff(Duration.ofSeconds(2), 2, Duration.ofSeconds(16)), clock, () -> 0.5);
        Duration minute = Duration.ofSeconds(60);
        job = new JobHandle(new Calls(connection, connection, retries, minute, minute), "job_1");
    }

    @AfterEach
    void stop() {
        connection.shutdownNow();
        server.shutdownNow();
    }

    @Test
    void whatRefusesToBeWatchedIsAskedLessAndLessOften() {
        assertEquals(Job.Status.succeeded, job.await(WITHIN, changed -> {}).getStatus());
        assertEquals(pauses(1, 2, 4, 8, 8, 8), clock.slept);
    }

    @Test
    void whatToldOfTheJobIsAskedAgainSoon() {
        tellsStatus = true;
        assertEquals(Job.Status.succeeded, job.await(WITHIN, changed -> {}).getStatus());
        assertEquals(pauses(1, 1, 1, 1, 1, 1), clock.slept);
    }

    private static List<Duration> pauses(int... seconds) {
        return Arrays.stream(seconds).mapToObj(Duration::ofSeconds).toList();
    }

    /** Ends every stream with an error within it; answers that the job has ended when asked for the sixth time. */
    private final class Draining extends JobServiceGrpc.JobServiceImplBase {
        @Override
        public void watchJob(WatchJobRequest request, StreamObserver<JobEvent> events) {
            if (tellsStatus) {
                events.onNext(JobEvent.newBuilder()
                        .setEvent(StreamEvent.Kind.status)
                        .setJob(running())
                        .build());
            }
            ErrorObject.Builder draining =
                    ErrorObject.newBuilder().setCode("service.draining").setStatus(503);
            events.onNext(JobEvent.newBuilder().setError(draining).build());
            events.onCompleted();
        }

        @Override
        public void getJob(GetJobRequest request, StreamObserver<Job> answers) {
            asked++;
            answers.onNext(asked < 6 ? running() : Job.newBuilder().setStatus(Job.Status.succeeded).build());
            answers.onCompleted();
        }

        private Job running() {
            return Job.newBuilder().setStatus(Job.Status.running).build();
        }
    }
}
